complete -c clean-conntrack -s f -l config -d 'Settings [default: /etc/nufw/nulog.toml, if there is one]' -r -F
complete -c clean-conntrack -l database -d 'The log (key clean.database)' -r
complete -c clean-conntrack -l server-socket -d 'The running server\'s socket (key log.server-socket)' -r
complete -c clean-conntrack -l grace -d 'Dead rows younger than this stay [default: 5m] (key clean.grace)' -r
complete -c clean-conntrack -l timeout -d 'Live rows older than this are checked [default: 1d] (key clean.timeout)' -r
complete -c clean-conntrack -l watch -d 'How long a silent gateway is watched before its rows are closed [default: 65s] (key clean.watch)' -r
complete -c clean-conntrack -l at-most -d 'End after this time although there is more to move (exit code 75)' -r
complete -c clean-conntrack -s n -l dry-run -d 'Change nothing; say what would be'
complete -c clean-conntrack -l json -d 'Print one JSON object at the end'
complete -c clean-conntrack -s q -l quiet -d 'Print nothing but errors'
complete -c clean-conntrack -s h -l help -d 'Print help (see more with \'--help\')'
complete -c clean-conntrack -s V -l version -d 'Print version'
