# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_nutcpc_global_optspecs
    string join \n H/server= p/port= also= name= A/ca= R/crl= U/user= password-file= password-fd= C/certificate= K/key= kerberos mechanism= system uid= once stay ticket-file= notify f/config= instance= json q/quiet h/help V/version
end

function __fish_nutcpc_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_nutcpc_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_nutcpc_using_subcommand
    set -l cmd (__fish_nutcpc_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c nutcpc -n "__fish_nutcpc_needs_command" -s H -l server -l host -d 'An authentication server; port 4129 unless said otherwise. May be repeated: a session with each. None of the configuration\'s servers counts then' -r
complete -c nutcpc -n "__fish_nutcpc_needs_command" -s p -l port -d 'Port of the servers, if not said with their names' -r
complete -c nutcpc -n "__fish_nutcpc_needs_command" -l also -d 'A further address of the same server, as for the other address family; may be repeated' -r
complete -c nutcpc -n "__fish_nutcpc_needs_command" -l name -d 'Name that the server\'s certificate must prove [default: the host of --server]' -r
complete -c nutcpc -n "__fish_nutcpc_needs_command" -s A -l ca -d 'Certificates of the authority that the server\'s certificate is from, PEM [default: /etc/nufw/ca.crt]' -r -F
complete -c nutcpc -n "__fish_nutcpc_needs_command" -s R -l crl -d 'Revocation list of that authority, PEM' -r -F
complete -c nutcpc -n "__fish_nutcpc_needs_command" -s U -l user -d 'Your user name; needed unless you log in by certificate or Kerberos ticket' -r
complete -c nutcpc -n "__fish_nutcpc_needs_command" -l password-file -d 'File whose first line is the password; only you may be able to read it' -r -F
complete -c nutcpc -n "__fish_nutcpc_needs_command" -l password-fd -d 'Number of an open file descriptor to read the password from (0 is standard input)' -r
complete -c nutcpc -n "__fish_nutcpc_needs_command" -s C -l certificate -d 'Your certificate, PEM: log in by it instead of a password' -r -F
complete -c nutcpc -n "__fish_nutcpc_needs_command" -s K -l key -d 'The certificate\'s private key, PEM' -r -F
complete -c nutcpc -n "__fish_nutcpc_needs_command" -l mechanism -d 'Log in by this alone: SCRAM-SHA-256-PLUS, SCRAM-SHA-256, PLAIN, EXTERNAL or GS2-KRB5-PLUS [default: the best that is offered]' -r
complete -c nutcpc -n "__fish_nutcpc_needs_command" -l uid -d 'Number of the user whose sockets are claimed' -r
complete -c nutcpc -n "__fish_nutcpc_needs_command" -l ticket-file -d 'Keep the ticket that the server gives in this file: for a while the next login needs no password, also after this program was ended by force' -r -F
complete -c nutcpc -n "__fish_nutcpc_needs_command" -s f -l config -d 'Your configuration file, in the place of nufw/nutcpc.toml below `XDG_CONFIG_HOME`' -r -F
complete -c nutcpc -n "__fish_nutcpc_needs_command" -l instance -d 'Name of this nutcpc, beside another one of yours' -r
complete -c nutcpc -n "__fish_nutcpc_needs_command" -l kerberos -d 'Log in by your Kerberos ticket instead of a password, as kinit gets one; the server\'s principal is nuauth/HOST@REALM'
complete -c nutcpc -n "__fish_nutcpc_needs_command" -l system -d 'Answer for another user\'s sockets; needs root'
complete -c nutcpc -n "__fish_nutcpc_needs_command" -l once -d 'End when the server cannot be reached or the session is lost, instead of trying again'
complete -c nutcpc -n "__fish_nutcpc_needs_command" -l stay -d 'Log in again, after a pause, also when the server has ended the session (an administrator, idleness, another login)'
complete -c nutcpc -n "__fish_nutcpc_needs_command" -l notify -d 'Show on the desktop which of your connections are refused, where the server tells of them'
complete -c nutcpc -n "__fish_nutcpc_needs_command" -l json -d 'Print JSON, one object a line'
complete -c nutcpc -n "__fish_nutcpc_needs_command" -s q -l quiet -d 'Print nothing but errors'
complete -c nutcpc -n "__fish_nutcpc_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nutcpc -n "__fish_nutcpc_needs_command" -s V -l version -d 'Print version'
complete -c nutcpc -n "__fish_nutcpc_needs_command" -f -a "status" -d 'Show where your nutcpc is logged in'
complete -c nutcpc -n "__fish_nutcpc_needs_command" -f -a "logout" -d 'Log out at one server, or everywhere'
complete -c nutcpc -n "__fish_nutcpc_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nutcpc -n "__fish_nutcpc_using_subcommand status" -l instance -d 'Name of the nutcpc that is asked, if it has one' -r
complete -c nutcpc -n "__fish_nutcpc_using_subcommand status" -l json -d 'Print one JSON object'
complete -c nutcpc -n "__fish_nutcpc_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nutcpc -n "__fish_nutcpc_using_subcommand logout" -l instance -d 'Name of the nutcpc that is asked, if it has one' -r
complete -c nutcpc -n "__fish_nutcpc_using_subcommand logout" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nutcpc -n "__fish_nutcpc_using_subcommand help; and not __fish_seen_subcommand_from status logout help" -f -a "status" -d 'Show where your nutcpc is logged in'
complete -c nutcpc -n "__fish_nutcpc_using_subcommand help; and not __fish_seen_subcommand_from status logout help" -f -a "logout" -d 'Log out at one server, or everywhere'
complete -c nutcpc -n "__fish_nutcpc_using_subcommand help; and not __fish_seen_subcommand_from status logout help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
