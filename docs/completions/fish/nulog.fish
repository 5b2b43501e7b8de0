# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_nulog_global_optspecs
    string join \n f/config= database= local h/help V/version
end

function __fish_nulog_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_nulog_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_nulog_using_subcommand
    set -l cmd (__fish_nulog_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c nulog -n "__fish_nulog_needs_command" -s f -l config -d 'Settings [default: /etc/nufw/nulog.toml, if there is one]' -r -F
complete -c nulog -n "__fish_nulog_needs_command" -l database -d 'The log (key search.database)' -r
complete -c nulog -n "__fish_nulog_needs_command" -l local -d 'Take times without a zone as this machine\'s, and show times in it, instead of UTC'
complete -c nulog -n "__fish_nulog_needs_command" -s h -l help -d 'Print help'
complete -c nulog -n "__fish_nulog_needs_command" -s V -l version -d 'Print version'
complete -c nulog -n "__fish_nulog_needs_command" -f -a "whois" -d 'Say who had an address and port at a time, as the outside saw them; exit 1 when nobody had'
complete -c nulog -n "__fish_nulog_needs_command" -f -a "search" -d 'Find connections by what is known of them'
complete -c nulog -n "__fish_nulog_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nulog -n "__fish_nulog_using_subcommand whois" -l at -d 'When: RFC 3339, a date with or without time of day (UTC; see --local), or how long ago (2h)' -r
complete -c nulog -n "__fish_nulog_using_subcommand whois" -l proto -d 'Of this protocol alone: tcp, udp, udplite, sctp, dccp' -r
complete -c nulog -n "__fish_nulog_using_subcommand whois" -l clock-error -d 'By how much your clock and the gateway\'s may differ [default: 1s] (key search.clock-error)' -r
complete -c nulog -n "__fish_nulog_using_subcommand whois" -s f -l config -d 'Settings [default: /etc/nufw/nulog.toml, if there is one]' -r -F
complete -c nulog -n "__fish_nulog_using_subcommand whois" -l database -d 'The log (key search.database)' -r
complete -c nulog -n "__fish_nulog_using_subcommand whois" -l json -d 'Print one JSON object'
complete -c nulog -n "__fish_nulog_using_subcommand whois" -l local -d 'Take times without a zone as this machine\'s, and show times in it, instead of UTC'
complete -c nulog -n "__fish_nulog_using_subcommand whois" -s h -l help -d 'Print help'
complete -c nulog -n "__fish_nulog_using_subcommand search" -l user -d 'Of this user' -r
complete -c nulog -n "__fish_nulog_using_subcommand search" -l app -d 'Of a program whose path contains this' -r
complete -c nulog -n "__fish_nulog_using_subcommand search" -l src -d 'From this address or network, before translation' -r
complete -c nulog -n "__fish_nulog_using_subcommand search" -l dst -d 'To this address or network, before translation' -r
complete -c nulog -n "__fish_nulog_using_subcommand search" -l port -d 'To this port' -r
complete -c nulog -n "__fish_nulog_using_subcommand search" -l sport -d 'From this port' -r
complete -c nulog -n "__fish_nulog_using_subcommand search" -l proto -d 'Of this protocol: tcp, udp, udplite, sctp, dccp, icmp, icmpv6, or a number' -r
complete -c nulog -n "__fish_nulog_using_subcommand search" -l gateway -d 'Through this gateway' -r
complete -c nulog -n "__fish_nulog_using_subcommand search" -l state -d 'In this state: drop, open, established or close; several with commas between them' -r
complete -c nulog -n "__fish_nulog_using_subcommand search" -l acl -d 'Decided by this rule' -r
complete -c nulog -n "__fish_nulog_using_subcommand search" -l close-reason -d 'Ended for this reason' -r
complete -c nulog -n "__fish_nulog_using_subcommand search" -l since -d 'Not before this time' -r
complete -c nulog -n "__fish_nulog_using_subcommand search" -l until -d 'Before this time' -r
complete -c nulog -n "__fish_nulog_using_subcommand search" -l limit -d 'At most this many' -r
complete -c nulog -n "__fish_nulog_using_subcommand search" -l after -d 'Read on after this place, in the same order' -r
complete -c nulog -n "__fish_nulog_using_subcommand search" -l format -d 'How they are shown' -r -f -a "table\t'For people'
csv\t'With all columns; texts as they are (RFC 4180)'
json\t'One JSON object a line, with all columns'"
complete -c nulog -n "__fish_nulog_using_subcommand search" -s f -l config -d 'Settings [default: /etc/nufw/nulog.toml, if there is one]' -r -F
complete -c nulog -n "__fish_nulog_using_subcommand search" -l database -d 'The log (key search.database)' -r
complete -c nulog -n "__fish_nulog_using_subcommand search" -l oldest-first -d 'The oldest first instead of the newest'
complete -c nulog -n "__fish_nulog_using_subcommand search" -l all -d 'As many as there are'
complete -c nulog -n "__fish_nulog_using_subcommand search" -l local -d 'Take times without a zone as this machine\'s, and show times in it, instead of UTC'
complete -c nulog -n "__fish_nulog_using_subcommand search" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nulog -n "__fish_nulog_using_subcommand help; and not __fish_seen_subcommand_from whois search help" -f -a "whois" -d 'Say who had an address and port at a time, as the outside saw them; exit 1 when nobody had'
complete -c nulog -n "__fish_nulog_using_subcommand help; and not __fish_seen_subcommand_from whois search help" -f -a "search" -d 'Find connections by what is known of them'
complete -c nulog -n "__fish_nulog_using_subcommand help; and not __fish_seen_subcommand_from whois search help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
