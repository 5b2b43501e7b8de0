complete -c ulog-rotate -s f -l config -d 'Settings [default: /etc/nufw/nulog.toml, if there is one]' -r -F
complete -c ulog-rotate -l database -d 'The log (key rotate.database)' -r
complete -c ulog-rotate -l keep -d 'How long rows are kept, such as 90d (key rotate.keep)' -r
complete -c ulog-rotate -l unit -d 'What goes at once: day or month (key rotate.unit)' -r
complete -c ulog-rotate -l ahead -d 'Partitions to make ahead (key rotate.ahead)' -r
complete -c ulog-rotate -l export -d 'Write what goes to files in this directory first (key rotate.export)' -r
complete -c ulog-rotate -l format -d 'Format of these files: csv.gz or csv (key rotate.format)' -r
complete -c ulog-rotate -l patience -d 'How long a lock that others hold is tried for (key rotate.patience)' -r
complete -c ulog-rotate -s n -l dry-run -d 'Say what would be done, and change nothing'
complete -c ulog-rotate -l list -d 'Show what the archive consists of, and change nothing'
complete -c ulog-rotate -l json -d 'Print one line of JSON'
complete -c ulog-rotate -s q -l quiet -d 'Say nothing when all is well'
complete -c ulog-rotate -s h -l help -d 'Print help'
complete -c ulog-rotate -s V -l version -d 'Print version'
