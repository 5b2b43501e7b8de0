# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_nuauth_ctl_global_optspecs
    string join \n s/socket= json h/help V/version
end

function __fish_nuauth_ctl_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_nuauth_ctl_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_nuauth_ctl_using_subcommand
    set -l cmd (__fish_nuauth_ctl_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c nuauth-ctl -n "__fish_nuauth_ctl_needs_command" -s s -l socket -d 'The server\'s socket (control.socket)' -r -F
complete -c nuauth-ctl -n "__fish_nuauth_ctl_needs_command" -l json -d 'Print JSON: a list for what is shown as a table, else an object'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_needs_command" -s h -l help -d 'Print help'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_needs_command" -s V -l version -d 'Print version'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_needs_command" -f -a "users" -d 'Who is logged in, where, and how sure that is'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_needs_command" -f -a "sessions" -d 'Who is logged in, where, and how sure that is'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_needs_command" -f -a "gateways" -d 'The gateways, connected or not'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_needs_command" -f -a "pending" -d 'Connections that wait for their decision at this moment'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_needs_command" -f -a "connections" -d 'Live connections'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_needs_command" -f -a "disconnect" -d 'Throw sessions out; their clients stay away until somebody logs in again'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_needs_command" -f -a "revoke-tickets" -d 'Make the tickets worthless with which clients come back without a password'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_needs_command" -f -a "reload" -d 'Read users, access lists, certificates and revocation list again'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_needs_command" -f -a "policy" -d 'Which access lists are in force'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_needs_command" -f -a "policy-version" -d 'Which access lists are in force'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_needs_command" -f -a "cache" -d 'What the server remembers of users from elsewhere'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_needs_command" -f -a "log-level" -d 'Show the filter of the server\'s log, or set it until the next start'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_needs_command" -f -a "statistics" -d 'What was counted since the start, and what waits'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_needs_command" -f -a "status" -d 'What was counted since the start, and what waits'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_needs_command" -f -a "drain" -d 'Take no logins and no packets any more, and end when nothing waits'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand users" -s s -l socket -d 'The server\'s socket (control.socket)' -r -F
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand users" -l json -d 'Print JSON: a list for what is shown as a table, else an object'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand users" -s h -l help -d 'Print help'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand sessions" -s s -l socket -d 'The server\'s socket (control.socket)' -r -F
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand sessions" -l json -d 'Print JSON: a list for what is shown as a table, else an object'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand sessions" -s h -l help -d 'Print help'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand gateways" -s s -l socket -d 'The server\'s socket (control.socket)' -r -F
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand gateways" -l json -d 'Print JSON: a list for what is shown as a table, else an object'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand gateways" -s h -l help -d 'Print help'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand pending" -s s -l socket -d 'The server\'s socket (control.socket)' -r -F
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand pending" -l json -d 'Print JSON: a list for what is shown as a table, else an object'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand pending" -s h -l help -d 'Print help'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand connections" -l user -d 'Of this user' -r
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand connections" -l address -d 'From or to this address' -r
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand connections" -l port -d 'From or to this port' -r
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand connections" -l limit -d 'Show at most so many' -r
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand connections" -s s -l socket -d 'The server\'s socket (control.socket)' -r -F
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand connections" -l json -d 'Print JSON: a list for what is shown as a table, else an object'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand connections" -s h -l help -d 'Print help'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand disconnect" -l user -d 'All sessions of this user' -r
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand disconnect" -l session -d 'The session of this number' -r
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand disconnect" -l address -d 'All sessions that hold this address' -r
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand disconnect" -l pattern -d 'All sessions of users whose name fits: * for any text, ? for any character' -r
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand disconnect" -l reason -d 'A sentence that the user is shown' -r
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand disconnect" -s s -l socket -d 'The server\'s socket (control.socket)' -r -F
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand disconnect" -l json -d 'Print JSON: a list for what is shown as a table, else an object'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand disconnect" -s h -l help -d 'Print help'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand revoke-tickets" -l user -d 'Those of this user; those of everybody unless it is given' -r
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand revoke-tickets" -s s -l socket -d 'The server\'s socket (control.socket)' -r -F
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand revoke-tickets" -l json -d 'Print JSON: a list for what is shown as a table, else an object'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand revoke-tickets" -s h -l help -d 'Print help'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand reload" -s s -l socket -d 'The server\'s socket (control.socket)' -r -F
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand reload" -l json -d 'Print JSON: a list for what is shown as a table, else an object'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand reload" -s h -l help -d 'Print help'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand policy" -s s -l socket -d 'The server\'s socket (control.socket)' -r -F
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand policy" -l json -d 'Print JSON: a list for what is shown as a table, else an object'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand policy" -s h -l help -d 'Print help'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand policy-version" -s s -l socket -d 'The server\'s socket (control.socket)' -r -F
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand policy-version" -l json -d 'Print JSON: a list for what is shown as a table, else an object'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand policy-version" -s h -l help -d 'Print help'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand cache; and not __fish_seen_subcommand_from refresh help" -s s -l socket -d 'The server\'s socket (control.socket)' -r -F
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand cache; and not __fish_seen_subcommand_from refresh help" -l json -d 'Print JSON: a list for what is shown as a table, else an object'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand cache; and not __fish_seen_subcommand_from refresh help" -s h -l help -d 'Print help'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand cache; and not __fish_seen_subcommand_from refresh help" -f -a "refresh" -d 'Forget it, so that it is asked for anew'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand cache; and not __fish_seen_subcommand_from refresh help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand cache; and __fish_seen_subcommand_from refresh" -s s -l socket -d 'The server\'s socket (control.socket)' -r -F
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand cache; and __fish_seen_subcommand_from refresh" -l json -d 'Print JSON: a list for what is shown as a table, else an object'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand cache; and __fish_seen_subcommand_from refresh" -s h -l help -d 'Print help'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand cache; and __fish_seen_subcommand_from help" -f -a "refresh" -d 'Forget it, so that it is asked for anew'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand cache; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand log-level" -s s -l socket -d 'The server\'s socket (control.socket)' -r -F
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand log-level" -l json -d 'Print JSON: a list for what is shown as a table, else an object'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand log-level" -s h -l help -d 'Print help'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand statistics" -s s -l socket -d 'The server\'s socket (control.socket)' -r -F
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand statistics" -l json -d 'Print JSON: a list for what is shown as a table, else an object'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand statistics" -s h -l help -d 'Print help'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand status" -s s -l socket -d 'The server\'s socket (control.socket)' -r -F
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand status" -l json -d 'Print JSON: a list for what is shown as a table, else an object'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand status" -s h -l help -d 'Print help'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand drain" -l within -d 'End after this time in any case' -r
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand drain" -s s -l socket -d 'The server\'s socket (control.socket)' -r -F
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand drain" -l json -d 'Print JSON: a list for what is shown as a table, else an object'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand drain" -s h -l help -d 'Print help'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand help; and not __fish_seen_subcommand_from users gateways pending connections disconnect revoke-tickets reload policy cache log-level statistics drain help" -f -a "users" -d 'Who is logged in, where, and how sure that is'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand help; and not __fish_seen_subcommand_from users gateways pending connections disconnect revoke-tickets reload policy cache log-level statistics drain help" -f -a "gateways" -d 'The gateways, connected or not'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand help; and not __fish_seen_subcommand_from users gateways pending connections disconnect revoke-tickets reload policy cache log-level statistics drain help" -f -a "pending" -d 'Connections that wait for their decision at this moment'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand help; and not __fish_seen_subcommand_from users gateways pending connections disconnect revoke-tickets reload policy cache log-level statistics drain help" -f -a "connections" -d 'Live connections'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand help; and not __fish_seen_subcommand_from users gateways pending connections disconnect revoke-tickets reload policy cache log-level statistics drain help" -f -a "disconnect" -d 'Throw sessions out; their clients stay away until somebody logs in again'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand help; and not __fish_seen_subcommand_from users gateways pending connections disconnect revoke-tickets reload policy cache log-level statistics drain help" -f -a "revoke-tickets" -d 'Make the tickets worthless with which clients come back without a password'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand help; and not __fish_seen_subcommand_from users gateways pending connections disconnect revoke-tickets reload policy cache log-level statistics drain help" -f -a "reload" -d 'Read users, access lists, certificates and revocation list again'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand help; and not __fish_seen_subcommand_from users gateways pending connections disconnect revoke-tickets reload policy cache log-level statistics drain help" -f -a "policy" -d 'Which access lists are in force'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand help; and not __fish_seen_subcommand_from users gateways pending connections disconnect revoke-tickets reload policy cache log-level statistics drain help" -f -a "cache" -d 'What the server remembers of users from elsewhere'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand help; and not __fish_seen_subcommand_from users gateways pending connections disconnect revoke-tickets reload policy cache log-level statistics drain help" -f -a "log-level" -d 'Show the filter of the server\'s log, or set it until the next start'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand help; and not __fish_seen_subcommand_from users gateways pending connections disconnect revoke-tickets reload policy cache log-level statistics drain help" -f -a "statistics" -d 'What was counted since the start, and what waits'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand help; and not __fish_seen_subcommand_from users gateways pending connections disconnect revoke-tickets reload policy cache log-level statistics drain help" -f -a "drain" -d 'Take no logins and no packets any more, and end when nothing waits'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand help; and not __fish_seen_subcommand_from users gateways pending connections disconnect revoke-tickets reload policy cache log-level statistics drain help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nuauth-ctl -n "__fish_nuauth_ctl_using_subcommand help; and __fish_seen_subcommand_from cache" -f -a "refresh" -d 'Forget it, so that it is asked for anew'
