# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_nuauth_server_global_optspecs
    string join \n f/config= log-sync= user= sandbox= h/help V/version
end

function __fish_nuauth_server_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_nuauth_server_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_nuauth_server_using_subcommand
    set -l cmd (__fish_nuauth_server_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c nuauth-server -n "__fish_nuauth_server_needs_command" -s f -l config -d 'The configuration file; paths in it are relative to its directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_needs_command" -l log-sync -d 'Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync' -r -f -a "true\t''
false\t''"
complete -c nuauth-server -n "__fish_nuauth_server_needs_command" -l user -d 'Become this user when started as root, after the ports are open; overrides privileges.user' -r
complete -c nuauth-server -n "__fish_nuauth_server_needs_command" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox' -r
complete -c nuauth-server -n "__fish_nuauth_server_needs_command" -s h -l help -d 'Print help'
complete -c nuauth-server -n "__fish_nuauth_server_needs_command" -s V -l version -d 'Print version'
complete -c nuauth-server -n "__fish_nuauth_server_needs_command" -f -a "run" -d 'Run the server in the foreground (also without any command)'
complete -c nuauth-server -n "__fish_nuauth_server_needs_command" -f -a "check" -d 'Check every file, print what was understood, exit 78 if something is wrong'
complete -c nuauth-server -n "__fish_nuauth_server_needs_command" -f -a "status" -d 'Show how the running server is: gateways, sessions, decisions, journal'
complete -c nuauth-server -n "__fish_nuauth_server_needs_command" -f -a "privileges" -d 'Print what a running server holds: user, capabilities, filters, sandbox'
complete -c nuauth-server -n "__fish_nuauth_server_needs_command" -f -a "pki" -d 'Make certificates: an authority, servers, gateways, users'
complete -c nuauth-server -n "__fish_nuauth_server_needs_command" -f -a "db" -d 'Look after the log\'s database'
complete -c nuauth-server -n "__fish_nuauth_server_needs_command" -f -a "policy" -d 'Check, show, try out, compare and replay access lists; explain what they decided'
complete -c nuauth-server -n "__fish_nuauth_server_needs_command" -f -a "hash-password" -d 'Read a password, print its hash for users.toml'
complete -c nuauth-server -n "__fish_nuauth_server_needs_command" -f -a "import-nufw" -d 'Make nuauth.toml, policy.toml and users.toml of the files of a NuFW 2.4 server'
complete -c nuauth-server -n "__fish_nuauth_server_needs_command" -f -a "directory-helper" -d 'The process that asks directories; the server starts it'
complete -c nuauth-server -n "__fish_nuauth_server_needs_command" -f -a "directory-worker" -d 'A process that asks one directory; the helper starts it'
complete -c nuauth-server -n "__fish_nuauth_server_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand run" -s f -l config -d 'The configuration file; paths in it are relative to its directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand run" -l log-sync -d 'Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync' -r -f -a "true\t''
false\t''"
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand run" -l user -d 'Become this user when started as root, after the ports are open; overrides privileges.user' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand run" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand run" -s h -l help -d 'Print help'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand check" -s f -l config -d 'The configuration file; paths in it are relative to its directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand check" -l log-sync -d 'Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync' -r -f -a "true\t''
false\t''"
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand check" -l user -d 'Become this user when started as root, after the ports are open; overrides privileges.user' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand check" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand check" -l json -d 'Print one JSON object'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand check" -s h -l help -d 'Print help'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand status" -s f -l config -d 'The configuration file; paths in it are relative to its directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand status" -l log-sync -d 'Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync' -r -f -a "true\t''
false\t''"
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand status" -l user -d 'Become this user when started as root, after the ports are open; overrides privileges.user' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand status" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand status" -l json -d 'Print one JSON object'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand status" -s h -l help -d 'Print help'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand privileges" -s f -l config -d 'The configuration file; paths in it are relative to its directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand privileges" -l log-sync -d 'Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync' -r -f -a "true\t''
false\t''"
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand privileges" -l user -d 'Become this user when started as root, after the ports are open; overrides privileges.user' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand privileges" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand privileges" -l json -d 'Print one JSON array'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand privileges" -s h -l help -d 'Print help'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and not __fish_seen_subcommand_from init server gateway client revoke help" -s f -l config -d 'The configuration file; paths in it are relative to its directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and not __fish_seen_subcommand_from init server gateway client revoke help" -l log-sync -d 'Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync' -r -f -a "true\t''
false\t''"
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and not __fish_seen_subcommand_from init server gateway client revoke help" -l user -d 'Become this user when started as root, after the ports are open; overrides privileges.user' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and not __fish_seen_subcommand_from init server gateway client revoke help" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and not __fish_seen_subcommand_from init server gateway client revoke help" -s h -l help -d 'Print help'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and not __fish_seen_subcommand_from init server gateway client revoke help" -f -a "init" -d 'Make a certificate authority: ca.crt, ca.key, and ca.crl that revokes nothing'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and not __fish_seen_subcommand_from init server gateway client revoke help" -f -a "server" -d 'Make an authentication server\'s certificate'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and not __fish_seen_subcommand_from init server gateway client revoke help" -f -a "gateway" -d 'Make a gateway\'s certificate; its name must be among gateways.names'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and not __fish_seen_subcommand_from init server gateway client revoke help" -f -a "client" -d 'Make a user\'s certificate, which logs in without a password (EXTERNAL)'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and not __fish_seen_subcommand_from init server gateway client revoke help" -f -a "revoke" -d 'Put a certificate on the revocation list'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and not __fish_seen_subcommand_from init server gateway client revoke help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from init" -l dir -d 'The directory, made if absent' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from init" -l name -d 'The authority\'s name' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from init" -l days -d 'Days that it is valid (3650 for an authority, 825 for others)' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from init" -l valid-from -d 'Valid from then on, as in 2026-12-31T23:59:59Z' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from init" -l valid-until -d 'Valid until then' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from init" -s f -l config -d 'The configuration file; paths in it are relative to its directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from init" -l log-sync -d 'Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync' -r -f -a "true\t''
false\t''"
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from init" -l user -d 'Become this user when started as root, after the ports are open; overrides privileges.user' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from init" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from init" -l force -d 'Replace an authority that is there: every certificate of it becomes worthless'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from init" -s h -l help -d 'Print help'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from server" -l dir -d 'The authority\'s directory; NAME.crt and NAME.key are written there' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from server" -l days -d 'Days that it is valid (3650 for an authority, 825 for others)' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from server" -l valid-from -d 'Valid from then on, as in 2026-12-31T23:59:59Z' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from server" -l valid-until -d 'Valid until then' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from server" -l address -d 'A further host name or IP address of the server; may be repeated' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from server" -s f -l config -d 'The configuration file; paths in it are relative to its directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from server" -l log-sync -d 'Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync' -r -f -a "true\t''
false\t''"
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from server" -l user -d 'Become this user when started as root, after the ports are open; overrides privileges.user' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from server" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from server" -l force -d 'Replace a certificate of that name'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from server" -s h -l help -d 'Print help'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from gateway" -l dir -d 'The authority\'s directory; NAME.crt and NAME.key are written there' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from gateway" -l days -d 'Days that it is valid (3650 for an authority, 825 for others)' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from gateway" -l valid-from -d 'Valid from then on, as in 2026-12-31T23:59:59Z' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from gateway" -l valid-until -d 'Valid until then' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from gateway" -s f -l config -d 'The configuration file; paths in it are relative to its directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from gateway" -l log-sync -d 'Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync' -r -f -a "true\t''
false\t''"
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from gateway" -l user -d 'Become this user when started as root, after the ports are open; overrides privileges.user' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from gateway" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from gateway" -l force -d 'Replace a certificate of that name'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from gateway" -s h -l help -d 'Print help'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from client" -l dir -d 'The authority\'s directory; NAME.crt and NAME.key are written there' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from client" -l days -d 'Days that it is valid (3650 for an authority, 825 for others)' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from client" -l valid-from -d 'Valid from then on, as in 2026-12-31T23:59:59Z' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from client" -l valid-until -d 'Valid until then' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from client" -s f -l config -d 'The configuration file; paths in it are relative to its directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from client" -l log-sync -d 'Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync' -r -f -a "true\t''
false\t''"
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from client" -l user -d 'Become this user when started as root, after the ports are open; overrides privileges.user' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from client" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from client" -l force -d 'Replace a certificate of that name'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from client" -s h -l help -d 'Print help'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from revoke" -l dir -d 'The authority\'s directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from revoke" -s f -l config -d 'The configuration file; paths in it are relative to its directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from revoke" -l log-sync -d 'Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync' -r -f -a "true\t''
false\t''"
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from revoke" -l user -d 'Become this user when started as root, after the ports are open; overrides privileges.user' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from revoke" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from revoke" -s h -l help -d 'Print help'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from help" -f -a "init" -d 'Make a certificate authority: ca.crt, ca.key, and ca.crl that revokes nothing'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from help" -f -a "server" -d 'Make an authentication server\'s certificate'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from help" -f -a "gateway" -d 'Make a gateway\'s certificate; its name must be among gateways.names'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from help" -f -a "client" -d 'Make a user\'s certificate, which logs in without a password (EXTERNAL)'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from help" -f -a "revoke" -d 'Put a certificate on the revocation list'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand pki; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand db; and not __fish_seen_subcommand_from migrate help" -s f -l config -d 'The configuration file; paths in it are relative to its directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand db; and not __fish_seen_subcommand_from migrate help" -l log-sync -d 'Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync' -r -f -a "true\t''
false\t''"
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand db; and not __fish_seen_subcommand_from migrate help" -l user -d 'Become this user when started as root, after the ports are open; overrides privileges.user' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand db; and not __fish_seen_subcommand_from migrate help" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand db; and not __fish_seen_subcommand_from migrate help" -s h -l help -d 'Print help'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand db; and not __fish_seen_subcommand_from migrate help" -f -a "migrate" -d 'Bring the schema up to date: before the first start, and after every update of the program'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand db; and not __fish_seen_subcommand_from migrate help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand db; and __fish_seen_subcommand_from migrate" -s f -l config -d 'The configuration file; paths in it are relative to its directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand db; and __fish_seen_subcommand_from migrate" -l log-sync -d 'Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync' -r -f -a "true\t''
false\t''"
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand db; and __fish_seen_subcommand_from migrate" -l user -d 'Become this user when started as root, after the ports are open; overrides privileges.user' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand db; and __fish_seen_subcommand_from migrate" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand db; and __fish_seen_subcommand_from migrate" -s h -l help -d 'Print help'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand db; and __fish_seen_subcommand_from help" -f -a "migrate" -d 'Bring the schema up to date: before the first start, and after every update of the program'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand db; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and not __fish_seen_subcommand_from check show test diff replay explain help" -s f -l config -d 'The configuration file; paths in it are relative to its directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and not __fish_seen_subcommand_from check show test diff replay explain help" -l log-sync -d 'Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync' -r -f -a "true\t''
false\t''"
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and not __fish_seen_subcommand_from check show test diff replay explain help" -l user -d 'Become this user when started as root, after the ports are open; overrides privileges.user' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and not __fish_seen_subcommand_from check show test diff replay explain help" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and not __fish_seen_subcommand_from check show test diff replay explain help" -s h -l help -d 'Print help'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and not __fish_seen_subcommand_from check show test diff replay explain help" -f -a "check" -d 'Read the lists; print what is wrong or odd about them, exit 78 if they would be refused'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and not __fish_seen_subcommand_from check show test diff replay explain help" -f -a "show" -d 'Print the lists in their normal form: sets and files resolved, items sorted, as their version is made of'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and not __fish_seen_subcommand_from check show test diff replay explain help" -f -a "test" -d 'Say what would become of a connection, by which rule, and why no earlier one decides'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and not __fish_seen_subcommand_from check show test diff replay explain help" -f -a "diff" -d 'Compare two lists, rule by rule; exit 1 if they differ'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and not __fish_seen_subcommand_from check show test diff replay explain help" -f -a "replay" -d 'Run connections of the log against lists, and print those whose verdict would change'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and not __fish_seen_subcommand_from check show test diff replay explain help" -f -a "explain" -d 'Tell from the row and the lists of that time why a connection was accepted or not'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and not __fish_seen_subcommand_from check show test diff replay explain help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from check" -s f -l config -d 'The configuration file; paths in it are relative to its directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from check" -l log-sync -d 'Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync' -r -f -a "true\t''
false\t''"
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from check" -l user -d 'Become this user when started as root, after the ports are open; overrides privileges.user' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from check" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from check" -l json -d 'Print one JSON object'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from show" -s f -l config -d 'The configuration file; paths in it are relative to its directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from show" -l log-sync -d 'Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync' -r -f -a "true\t''
false\t''"
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from show" -l user -d 'Become this user when started as root, after the ports are open; overrides privileges.user' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from show" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from show" -l json -d 'Print one JSON object'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from test" -l user -d 'Whose: a name of the users\' file. Without it nobody is logged in at the source' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from test" -l id -d 'The user\'s number, where another back-end than the users\' file has the user' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from test" -l group -d 'A group of the user, in the place of those that the users\' file has; may be repeated' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from test" -l auth -d 'How the user has logged in: address, password or certificate' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from test" -l protocol -d 'tcp, udp, icmp and so on, or a number' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from test" -l icmp -d 'ICMP type and code, as 8 or 3/1' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from test" -l app -d 'Path of the program, as a client would say' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from test" -l sha256 -d 'SHA-256 of the program, as sha256sum prints it' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from test" -l os -d 'Operating system as rows have it: name-version-release' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from test" -l in -d 'The interface that it comes in by' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from test" -l out -d 'The interface that it would leave by' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from test" -l bridge-in -d 'The port of the bridge that it comes in by' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from test" -l bridge-out -d 'The port of the bridge that it would leave by' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from test" -l gateway -d 'The gateway' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from test" -l at -d 'At which time, as 2026-12-24T18:00:00Z; now, if absent' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from test" -l policy -d 'Other lists than those of the configuration' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from test" -s f -l config -d 'The configuration file; paths in it are relative to its directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from test" -l log-sync -d 'Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync' -r -f -a "true\t''
false\t''"
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from test" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from test" -l json -d 'Print one JSON object'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from test" -s h -l help -d 'Print help'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from diff" -s f -l config -d 'The configuration file; paths in it are relative to its directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from diff" -l log-sync -d 'Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync' -r -f -a "true\t''
false\t''"
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from diff" -l user -d 'Become this user when started as root, after the ports are open; overrides privileges.user' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from diff" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from diff" -l json -d 'Print one JSON object'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from diff" -s h -l help -d 'Print help'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from replay" -l since -d 'Connections of that time before now (7d), or since then (2026-11-30T08:00:00Z)' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from replay" -l until -d 'And before then' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from replay" -s f -l config -d 'The configuration file; paths in it are relative to its directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from replay" -l log-sync -d 'Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync' -r -f -a "true\t''
false\t''"
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from replay" -l user -d 'Become this user when started as root, after the ports are open; overrides privileges.user' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from replay" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from replay" -l json -d 'Print one JSON object a line, the summary last'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from replay" -s h -l help -d 'Print help'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from explain" -s f -l config -d 'The configuration file; paths in it are relative to its directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from explain" -l log-sync -d 'Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync' -r -f -a "true\t''
false\t''"
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from explain" -l user -d 'Become this user when started as root, after the ports are open; overrides privileges.user' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from explain" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from explain" -l json -d 'Print one JSON object'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from explain" -s h -l help -d 'Print help'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from help" -f -a "check" -d 'Read the lists; print what is wrong or odd about them, exit 78 if they would be refused'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from help" -f -a "show" -d 'Print the lists in their normal form: sets and files resolved, items sorted, as their version is made of'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from help" -f -a "test" -d 'Say what would become of a connection, by which rule, and why no earlier one decides'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from help" -f -a "diff" -d 'Compare two lists, rule by rule; exit 1 if they differ'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from help" -f -a "replay" -d 'Run connections of the log against lists, and print those whose verdict would change'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from help" -f -a "explain" -d 'Tell from the row and the lists of that time why a connection was accepted or not'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand policy; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand hash-password" -s f -l config -d 'The configuration file; paths in it are relative to its directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand hash-password" -l log-sync -d 'Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync' -r -f -a "true\t''
false\t''"
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand hash-password" -l user -d 'Become this user when started as root, after the ports are open; overrides privileges.user' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand hash-password" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand hash-password" -l scram -d 'Print keys for SCRAM-SHA-256 (the key scram), by which the password never leaves the client'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand hash-password" -s h -l help -d 'Print help'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand import-nufw" -l dir -d 'Where our files go; made if absent' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand import-nufw" -s f -l config -d 'The configuration file; paths in it are relative to its directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand import-nufw" -l log-sync -d 'Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync' -r -f -a "true\t''
false\t''"
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand import-nufw" -l user -d 'Become this user when started as root, after the ports are open; overrides privileges.user' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand import-nufw" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand import-nufw" -l force -d 'Replace files that are there'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand import-nufw" -l json -d 'Print the report as one JSON object'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand import-nufw" -s h -l help -d 'Print help'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand directory-helper" -l system-user -d 'Whom workers of users.system become' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand directory-helper" -s f -l config -d 'The configuration file; paths in it are relative to its directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand directory-helper" -l log-sync -d 'Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync' -r -f -a "true\t''
false\t''"
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand directory-helper" -l user -d 'Become this user when started as root, after the ports are open; overrides privileges.user' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand directory-helper" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand directory-helper" -s h -l help -d 'Print help'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand directory-worker" -s f -l config -d 'The configuration file; paths in it are relative to its directory' -r -F
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand directory-worker" -l log-sync -d 'Accept a packet only after its row is on disk (true), or at once (false); overrides log.sync' -r -f -a "true\t''
false\t''"
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand directory-worker" -l user -d 'Become this user when started as root, after the ports are open; overrides privileges.user' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand directory-worker" -l sandbox -d 'enforce, best-effort or off: what the kernel holds the running server to; overrides privileges.sandbox' -r
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand directory-worker" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand help; and not __fish_seen_subcommand_from run check status privileges pki db policy hash-password import-nufw directory-helper directory-worker help" -f -a "run" -d 'Run the server in the foreground (also without any command)'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand help; and not __fish_seen_subcommand_from run check status privileges pki db policy hash-password import-nufw directory-helper directory-worker help" -f -a "check" -d 'Check every file, print what was understood, exit 78 if something is wrong'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand help; and not __fish_seen_subcommand_from run check status privileges pki db policy hash-password import-nufw directory-helper directory-worker help" -f -a "status" -d 'Show how the running server is: gateways, sessions, decisions, journal'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand help; and not __fish_seen_subcommand_from run check status privileges pki db policy hash-password import-nufw directory-helper directory-worker help" -f -a "privileges" -d 'Print what a running server holds: user, capabilities, filters, sandbox'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand help; and not __fish_seen_subcommand_from run check status privileges pki db policy hash-password import-nufw directory-helper directory-worker help" -f -a "pki" -d 'Make certificates: an authority, servers, gateways, users'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand help; and not __fish_seen_subcommand_from run check status privileges pki db policy hash-password import-nufw directory-helper directory-worker help" -f -a "db" -d 'Look after the log\'s database'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand help; and not __fish_seen_subcommand_from run check status privileges pki db policy hash-password import-nufw directory-helper directory-worker help" -f -a "policy" -d 'Check, show, try out, compare and replay access lists; explain what they decided'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand help; and not __fish_seen_subcommand_from run check status privileges pki db policy hash-password import-nufw directory-helper directory-worker help" -f -a "hash-password" -d 'Read a password, print its hash for users.toml'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand help; and not __fish_seen_subcommand_from run check status privileges pki db policy hash-password import-nufw directory-helper directory-worker help" -f -a "import-nufw" -d 'Make nuauth.toml, policy.toml and users.toml of the files of a NuFW 2.4 server'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand help; and not __fish_seen_subcommand_from run check status privileges pki db policy hash-password import-nufw directory-helper directory-worker help" -f -a "directory-helper" -d 'The process that asks directories; the server starts it'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand help; and not __fish_seen_subcommand_from run check status privileges pki db policy hash-password import-nufw directory-helper directory-worker help" -f -a "directory-worker" -d 'A process that asks one directory; the helper starts it'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand help; and not __fish_seen_subcommand_from run check status privileges pki db policy hash-password import-nufw directory-helper directory-worker help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand help; and __fish_seen_subcommand_from pki" -f -a "init" -d 'Make a certificate authority: ca.crt, ca.key, and ca.crl that revokes nothing'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand help; and __fish_seen_subcommand_from pki" -f -a "server" -d 'Make an authentication server\'s certificate'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand help; and __fish_seen_subcommand_from pki" -f -a "gateway" -d 'Make a gateway\'s certificate; its name must be among gateways.names'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand help; and __fish_seen_subcommand_from pki" -f -a "client" -d 'Make a user\'s certificate, which logs in without a password (EXTERNAL)'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand help; and __fish_seen_subcommand_from pki" -f -a "revoke" -d 'Put a certificate on the revocation list'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand help; and __fish_seen_subcommand_from db" -f -a "migrate" -d 'Bring the schema up to date: before the first start, and after every update of the program'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand help; and __fish_seen_subcommand_from policy" -f -a "check" -d 'Read the lists; print what is wrong or odd about them, exit 78 if they would be refused'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand help; and __fish_seen_subcommand_from policy" -f -a "show" -d 'Print the lists in their normal form: sets and files resolved, items sorted, as their version is made of'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand help; and __fish_seen_subcommand_from policy" -f -a "test" -d 'Say what would become of a connection, by which rule, and why no earlier one decides'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand help; and __fish_seen_subcommand_from policy" -f -a "diff" -d 'Compare two lists, rule by rule; exit 1 if they differ'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand help; and __fish_seen_subcommand_from policy" -f -a "replay" -d 'Run connections of the log against lists, and print those whose verdict would change'
complete -c nuauth-server -n "__fish_nuauth_server_using_subcommand help; and __fish_seen_subcommand_from policy" -f -a "explain" -d 'Tell from the row and the lists of that time why a connection was accepted or not'
