complete -c nutop -s f -l config -d 'Settings file; its section [log] says where the log is [default: /etc/nufw/nulog.toml, if there is one]' -r -F
complete -c nutop -l database -d 'The log (key log.database)' -r
complete -c nutop -l interval -d 'How often it is read, 200ms to 1h' -r
complete -c nutop -l limit -d 'How many connections are read at most, the newest; the view says when there are more' -r
complete -c nutop -l filter -d 'Show only connections that fit: words and field:value pairs, all of which must occur' -r
complete -c nutop -l sort -d 'Sort by this column' -r -f -a "user\t''
program\t''
protocol\t''
source\t''
destination\t''
state\t''
age\t''
in\t''
out\t''
rate\t''"
complete -c nutop -l group -d 'Put connections together' -r -f -a "user\t''
host\t'The source address'
program\t''"
complete -c nutop -l reverse -d 'The other way round'
complete -c nutop -l once -d 'Print a table once and end'
complete -c nutop -l json -d 'Print one JSON object and end'
complete -c nutop -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nutop -s V -l version -d 'Print version'
