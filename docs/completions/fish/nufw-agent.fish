# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_nufw_agent_global_optspecs
    string join \n f/config= d/server= q/queue-num= t/packet-timeout= C/conntrack M/marked-only track-by-flags m/mark user= sandbox= single-process as-worker h/help V/version
end

function __fish_nufw_agent_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_nufw_agent_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_nufw_agent_using_subcommand
    set -l cmd (__fish_nufw_agent_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c nufw-agent -n "__fish_nufw_agent_needs_command" -s f -l config -d 'Configuration file [default: /etc/nufw/nufw-agent.toml, if it exists]' -r -F
complete -c nufw-agent -n "__fish_nufw_agent_needs_command" -s d -l server -d 'The authentication server: host, or host:port; several with commas, the best first (key server.address)' -r
complete -c nufw-agent -n "__fish_nufw_agent_needs_command" -s q -l queue-num -d 'Number of the NFQUEUE, as in the rule\'s --queue-num (key queue.number)' -r
complete -c nufw-agent -n "__fish_nufw_agent_needs_command" -s t -l packet-timeout -d 'How long a packet waits for an answer before it is dropped: 15s, or seconds (key queue.packet-timeout)' -r
complete -c nufw-agent -n "__fish_nufw_agent_needs_command" -l user -d 'Become this user, when started as root (key privileges.user)' -r
complete -c nufw-agent -n "__fish_nufw_agent_needs_command" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running agent to (key privileges.sandbox)' -r
complete -c nufw-agent -n "__fish_nufw_agent_needs_command" -s C -l conntrack -d 'Relay conntrack events, so that the server knows when connections begin and end (key conntrack.relay)'
complete -c nufw-agent -n "__fish_nufw_agent_needs_command" -s M -l marked-only -d 'Relay only events of marked connections, filtered in the kernel; implies -C and -m (key conntrack.marked-only)'
complete -c nufw-agent -n "__fish_nufw_agent_needs_command" -l track-by-flags -d 'Without conntrack events: follow forwarded TCP connections by SYN/ACK, FIN and RST instead, without counters (key conntrack.track-by-flags); not with -C or -M'
complete -c nufw-agent -n "__fish_nufw_agent_needs_command" -s m -l mark -d 'Set the user\'s mark on accepted packets (key marks.set)'
complete -c nufw-agent -n "__fish_nufw_agent_needs_command" -l single-process -d 'Run in one process, which holds its capability while it parses packets and speaks TLS: for debugging'
complete -c nufw-agent -n "__fish_nufw_agent_needs_command" -l as-worker -d 'Be the worker of a supervisor, which is at the other end of standard input'
complete -c nufw-agent -n "__fish_nufw_agent_needs_command" -s h -l help -d 'Print help'
complete -c nufw-agent -n "__fish_nufw_agent_needs_command" -s V -l version -d 'Print version'
complete -c nufw-agent -n "__fish_nufw_agent_needs_command" -f -a "run" -d 'Run in the foreground; the same as no command'
complete -c nufw-agent -n "__fish_nufw_agent_needs_command" -f -a "check" -d 'Say what this host lacks, and how to mend each'
complete -c nufw-agent -n "__fish_nufw_agent_needs_command" -f -a "status" -d 'Show how the running agent is: queue, packets, events, link, buffers'
complete -c nufw-agent -n "__fish_nufw_agent_needs_command" -f -a "privileges" -d 'Print what a running agent holds: user, capabilities, filters, sandbox'
complete -c nufw-agent -n "__fish_nufw_agent_needs_command" -f -a "rules" -d 'Print the firewall rules that the agent needs, load them (--apply) or remove them (--remove)'
complete -c nufw-agent -n "__fish_nufw_agent_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand run" -s f -l config -d 'Configuration file [default: /etc/nufw/nufw-agent.toml, if it exists]' -r -F
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand run" -s d -l server -d 'The authentication server: host, or host:port; several with commas, the best first (key server.address)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand run" -s q -l queue-num -d 'Number of the NFQUEUE, as in the rule\'s --queue-num (key queue.number)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand run" -s t -l packet-timeout -d 'How long a packet waits for an answer before it is dropped: 15s, or seconds (key queue.packet-timeout)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand run" -l user -d 'Become this user, when started as root (key privileges.user)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand run" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running agent to (key privileges.sandbox)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand run" -s C -l conntrack -d 'Relay conntrack events, so that the server knows when connections begin and end (key conntrack.relay)'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand run" -s M -l marked-only -d 'Relay only events of marked connections, filtered in the kernel; implies -C and -m (key conntrack.marked-only)'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand run" -l track-by-flags -d 'Without conntrack events: follow forwarded TCP connections by SYN/ACK, FIN and RST instead, without counters (key conntrack.track-by-flags); not with -C or -M'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand run" -s m -l mark -d 'Set the user\'s mark on accepted packets (key marks.set)'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand run" -l as-worker -d 'Be the worker of a supervisor, which is at the other end of standard input'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand run" -s h -l help -d 'Print help'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand check" -s f -l config -d 'Configuration file [default: /etc/nufw/nufw-agent.toml, if it exists]' -r -F
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand check" -s d -l server -d 'The authentication server: host, or host:port; several with commas, the best first (key server.address)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand check" -s q -l queue-num -d 'Number of the NFQUEUE, as in the rule\'s --queue-num (key queue.number)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand check" -s t -l packet-timeout -d 'How long a packet waits for an answer before it is dropped: 15s, or seconds (key queue.packet-timeout)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand check" -l user -d 'Become this user, when started as root (key privileges.user)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand check" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running agent to (key privileges.sandbox)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand check" -l json -d 'Print one JSON object'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand check" -s C -l conntrack -d 'Relay conntrack events, so that the server knows when connections begin and end (key conntrack.relay)'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand check" -s M -l marked-only -d 'Relay only events of marked connections, filtered in the kernel; implies -C and -m (key conntrack.marked-only)'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand check" -l track-by-flags -d 'Without conntrack events: follow forwarded TCP connections by SYN/ACK, FIN and RST instead, without counters (key conntrack.track-by-flags); not with -C or -M'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand check" -s m -l mark -d 'Set the user\'s mark on accepted packets (key marks.set)'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand check" -l as-worker -d 'Be the worker of a supervisor, which is at the other end of standard input'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand check" -s h -l help -d 'Print help'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand status" -s f -l config -d 'Configuration file [default: /etc/nufw/nufw-agent.toml, if it exists]' -r -F
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand status" -s d -l server -d 'The authentication server: host, or host:port; several with commas, the best first (key server.address)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand status" -s q -l queue-num -d 'Number of the NFQUEUE, as in the rule\'s --queue-num (key queue.number)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand status" -s t -l packet-timeout -d 'How long a packet waits for an answer before it is dropped: 15s, or seconds (key queue.packet-timeout)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand status" -l user -d 'Become this user, when started as root (key privileges.user)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand status" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running agent to (key privileges.sandbox)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand status" -l json -d 'Print one JSON object'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand status" -s C -l conntrack -d 'Relay conntrack events, so that the server knows when connections begin and end (key conntrack.relay)'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand status" -s M -l marked-only -d 'Relay only events of marked connections, filtered in the kernel; implies -C and -m (key conntrack.marked-only)'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand status" -l track-by-flags -d 'Without conntrack events: follow forwarded TCP connections by SYN/ACK, FIN and RST instead, without counters (key conntrack.track-by-flags); not with -C or -M'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand status" -s m -l mark -d 'Set the user\'s mark on accepted packets (key marks.set)'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand status" -l as-worker -d 'Be the worker of a supervisor, which is at the other end of standard input'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand status" -s h -l help -d 'Print help'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand privileges" -s f -l config -d 'Configuration file [default: /etc/nufw/nufw-agent.toml, if it exists]' -r -F
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand privileges" -s d -l server -d 'The authentication server: host, or host:port; several with commas, the best first (key server.address)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand privileges" -s q -l queue-num -d 'Number of the NFQUEUE, as in the rule\'s --queue-num (key queue.number)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand privileges" -s t -l packet-timeout -d 'How long a packet waits for an answer before it is dropped: 15s, or seconds (key queue.packet-timeout)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand privileges" -l user -d 'Become this user, when started as root (key privileges.user)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand privileges" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running agent to (key privileges.sandbox)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand privileges" -l json -d 'Print one JSON array'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand privileges" -s C -l conntrack -d 'Relay conntrack events, so that the server knows when connections begin and end (key conntrack.relay)'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand privileges" -s M -l marked-only -d 'Relay only events of marked connections, filtered in the kernel; implies -C and -m (key conntrack.marked-only)'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand privileges" -l track-by-flags -d 'Without conntrack events: follow forwarded TCP connections by SYN/ACK, FIN and RST instead, without counters (key conntrack.track-by-flags); not with -C or -M'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand privileges" -s m -l mark -d 'Set the user\'s mark on accepted packets (key marks.set)'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand privileges" -l as-worker -d 'Be the worker of a supervisor, which is at the other end of standard input'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand privileges" -s h -l help -d 'Print help'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand rules" -l format -d 'iptables (also for ip6tables) or nft (key rules.backend)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand rules" -l hook -d 'Where new connections are held back: forward, input, output, or several of them (key rules.hooks)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand rules" -s f -l config -d 'Configuration file [default: /etc/nufw/nufw-agent.toml, if it exists]' -r -F
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand rules" -s d -l server -d 'The authentication server: host, or host:port; several with commas, the best first (key server.address)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand rules" -s q -l queue-num -d 'Number of the NFQUEUE, as in the rule\'s --queue-num (key queue.number)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand rules" -s t -l packet-timeout -d 'How long a packet waits for an answer before it is dropped: 15s, or seconds (key queue.packet-timeout)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand rules" -l user -d 'Become this user, when started as root (key privileges.user)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand rules" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running agent to (key privileges.sandbox)' -r
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand rules" -l all-events -d 'Let conntrack make every event, where another program on this host wants them'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand rules" -l apply -d 'Load the rules, all or none, in place of those that are loaded'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand rules" -l remove -d 'Remove the rules, all or none'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand rules" -l print -d 'With --remove: only print what removes them'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand rules" -s C -l conntrack -d 'Relay conntrack events, so that the server knows when connections begin and end (key conntrack.relay)'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand rules" -s M -l marked-only -d 'Relay only events of marked connections, filtered in the kernel; implies -C and -m (key conntrack.marked-only)'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand rules" -l track-by-flags -d 'Without conntrack events: follow forwarded TCP connections by SYN/ACK, FIN and RST instead, without counters (key conntrack.track-by-flags); not with -C or -M'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand rules" -s m -l mark -d 'Set the user\'s mark on accepted packets (key marks.set)'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand rules" -l as-worker -d 'Be the worker of a supervisor, which is at the other end of standard input'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand rules" -s h -l help -d 'Print help'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand help; and not __fish_seen_subcommand_from run check status privileges rules help" -f -a "run" -d 'Run in the foreground; the same as no command'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand help; and not __fish_seen_subcommand_from run check status privileges rules help" -f -a "check" -d 'Say what this host lacks, and how to mend each'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand help; and not __fish_seen_subcommand_from run check status privileges rules help" -f -a "status" -d 'Show how the running agent is: queue, packets, events, link, buffers'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand help; and not __fish_seen_subcommand_from run check status privileges rules help" -f -a "privileges" -d 'Print what a running agent holds: user, capabilities, filters, sandbox'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand help; and not __fish_seen_subcommand_from run check status privileges rules help" -f -a "rules" -d 'Print the firewall rules that the agent needs, load them (--apply) or remove them (--remove)'
complete -c nufw-agent -n "__fish_nufw_agent_using_subcommand help; and not __fish_seen_subcommand_from run check status privileges rules help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
