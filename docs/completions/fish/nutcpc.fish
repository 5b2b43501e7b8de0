complete -c nutcpc -s H -l server -l host -d 'The authentication server; port 4129 unless said otherwise' -r
complete -c nutcpc -s p -l port -d 'Port of the server, if not said with its name' -r
complete -c nutcpc -l also -d 'A further address of the same server, as for the other address family; may be repeated' -r
complete -c nutcpc -l name -d 'Name that the server\'s certificate must prove [default: the host of --server]' -r
complete -c nutcpc -s A -l ca -d 'Certificates of the authority that the server\'s certificate is from, PEM' -r -F
complete -c nutcpc -s R -l crl -d 'Revocation list of that authority, PEM' -r -F
complete -c nutcpc -s U -l user -d 'Your user name; needed unless you log in by certificate' -r
complete -c nutcpc -l password-file -d 'File whose first line is the password; only you may be able to read it' -r -F
complete -c nutcpc -l password-fd -d 'Number of an open file descriptor to read the password from (0 is standard input)' -r
complete -c nutcpc -s C -l certificate -d 'Your certificate, PEM: log in by it instead of a password' -r -F
complete -c nutcpc -s K -l key -d 'The certificate\'s private key, PEM' -r -F
complete -c nutcpc -l mechanism -d 'Log in by this alone: SCRAM-SHA-256-PLUS, SCRAM-SHA-256, PLAIN or EXTERNAL [default: the best that is offered]' -r
complete -c nutcpc -l uid -d 'Number of the user whose sockets are claimed' -r
complete -c nutcpc -l ticket-file -d 'Keep the ticket that the server gives in this file: for a while the next login needs no password, also after this program was ended by force' -r -F
complete -c nutcpc -l system -d 'Answer for another user\'s sockets; needs root'
complete -c nutcpc -l once -d 'End when the server cannot be reached or the session is lost, instead of trying again'
complete -c nutcpc -l stay -d 'Log in again, after a pause, also when the server has ended the session (an administrator, idleness, another login)'
complete -c nutcpc -l json -d 'Print JSON, one object a line'
complete -c nutcpc -s q -l quiet -d 'Print nothing but errors'
complete -c nutcpc -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nutcpc -s V -l version -d 'Print version'
