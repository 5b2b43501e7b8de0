# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_nu_sso_global_optspecs
    string join \n f/config= database= retry= h/help V/version
end

function __fish_nu_sso_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_nu_sso_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_nu_sso_using_subcommand
    set -l cmd (__fish_nu_sso_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c nu-sso -n "__fish_nu_sso_needs_command" -s f -l config -d 'Configuration file [default: /etc/nufw/nu-sso.toml, if there is one]' -r -F
complete -c nu-sso -n "__fish_nu_sso_needs_command" -l database -d 'The log (key log.database)' -r
complete -c nu-sso -n "__fish_nu_sso_needs_command" -l retry -d 'How long a miss is looked for again, 0s for once (key lookup.retry)' -r
complete -c nu-sso -n "__fish_nu_sso_needs_command" -s h -l help -d 'Print help'
complete -c nu-sso -n "__fish_nu_sso_needs_command" -s V -l version -d 'Print version'
complete -c nu-sso -n "__fish_nu_sso_needs_command" -f -a "lookup" -d 'Print the user of a connection; exit 1 when there is none'
complete -c nu-sso -n "__fish_nu_sso_needs_command" -f -a "serve" -d 'Answer web servers and proxies by HTTP'
complete -c nu-sso -n "__fish_nu_sso_needs_command" -f -a "squid" -d 'Be a helper of Squid\'s `external_acl_type`: questions on standard input, answers on standard output'
complete -c nu-sso -n "__fish_nu_sso_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nu-sso -n "__fish_nu_sso_using_subcommand lookup" -l proto -d 'tcp, udp, udplite, sctp or dccp' -r
complete -c nu-sso -n "__fish_nu_sso_using_subcommand lookup" -s f -l config -d 'Configuration file [default: /etc/nufw/nu-sso.toml, if there is one]' -r -F
complete -c nu-sso -n "__fish_nu_sso_using_subcommand lookup" -l database -d 'The log (key log.database)' -r
complete -c nu-sso -n "__fish_nu_sso_using_subcommand lookup" -l retry -d 'How long a miss is looked for again, 0s for once (key lookup.retry)' -r
complete -c nu-sso -n "__fish_nu_sso_using_subcommand lookup" -l json -d 'Print one JSON object'
complete -c nu-sso -n "__fish_nu_sso_using_subcommand lookup" -s h -l help -d 'Print help'
complete -c nu-sso -n "__fish_nu_sso_using_subcommand serve" -l listen -d 'Where: `unix:/path` or `address:port`; may be repeated (key serve.listen)' -r
complete -c nu-sso -n "__fish_nu_sso_using_subcommand serve" -s f -l config -d 'Configuration file [default: /etc/nufw/nu-sso.toml, if there is one]' -r -F
complete -c nu-sso -n "__fish_nu_sso_using_subcommand serve" -l database -d 'The log (key log.database)' -r
complete -c nu-sso -n "__fish_nu_sso_using_subcommand serve" -l retry -d 'How long a miss is looked for again, 0s for once (key lookup.retry)' -r
complete -c nu-sso -n "__fish_nu_sso_using_subcommand serve" -s h -l help -d 'Print help'
complete -c nu-sso -n "__fish_nu_sso_using_subcommand squid" -s f -l config -d 'Configuration file [default: /etc/nufw/nu-sso.toml, if there is one]' -r -F
complete -c nu-sso -n "__fish_nu_sso_using_subcommand squid" -l database -d 'The log (key log.database)' -r
complete -c nu-sso -n "__fish_nu_sso_using_subcommand squid" -l retry -d 'How long a miss is looked for again, 0s for once (key lookup.retry)' -r
complete -c nu-sso -n "__fish_nu_sso_using_subcommand squid" -s h -l help -d 'Print help'
complete -c nu-sso -n "__fish_nu_sso_using_subcommand help; and not __fish_seen_subcommand_from lookup serve squid help" -f -a "lookup" -d 'Print the user of a connection; exit 1 when there is none'
complete -c nu-sso -n "__fish_nu_sso_using_subcommand help; and not __fish_seen_subcommand_from lookup serve squid help" -f -a "serve" -d 'Answer web servers and proxies by HTTP'
complete -c nu-sso -n "__fish_nu_sso_using_subcommand help; and not __fish_seen_subcommand_from lookup serve squid help" -f -a "squid" -d 'Be a helper of Squid\'s `external_acl_type`: questions on standard input, answers on standard output'
complete -c nu-sso -n "__fish_nu_sso_using_subcommand help; and not __fish_seen_subcommand_from lookup serve squid help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
