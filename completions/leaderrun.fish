complete -c leaderrun -l lock -d 'The lock to hold: a Lease as [NAMESPACE/]NAME, a local file as file:PATH, or another kind as KIND:[NAMESPACE/]NAME' -r
complete -c leaderrun -l identity -d 'The name to hold it by [default: host name, _, UUID]' -r
complete -c leaderrun -l wait -d 'Give up with status 75 when the lock was not acquired for so long; 0s does not queue behind a living holder' -r
complete -c leaderrun -l min-hold -d 'When the command has ended well, nobody runs it until so long after the lock was acquired' -r
complete -c leaderrun -l on-lost -d 'What to do when the leadership was lost and the command is gone: exit or rejoin, which waits for the lock again' -r
complete -c leaderrun -l lease-duration -d 'How long the lease holds without being renewed, in whole seconds' -r
complete -c leaderrun -l renew-deadline -d 'How long after the last renewal the command is told to stop' -r
complete -c leaderrun -l retry-period -d 'How often the lease is renewed' -r
complete -c leaderrun -l lost-grace -d 'How long a command that was told to stop because the lease was lost, or what a command left running, may take before it is killed [default: half of what is left of the lease]' -r
complete -c leaderrun -l stop-signal -d 'The signal, by name or number, that tells the command to stop because the lease was lost' -r
complete -c leaderrun -l kill-after -d 'Kill the command so long after a TERM or INT was forwarded to it [default: never]' -r
complete -c leaderrun -l kubeconfig -d 'The kubeconfig to use [default: KUBECONFIG, ~/.kube/config, or the pod\'s service account]' -r -F
complete -c leaderrun -l context -d 'The context of the kubeconfig to use' -r
complete -c leaderrun -l as -d 'The user to act as' -r
complete -c leaderrun -l http -d 'Answer HTTP there, with /healthz, /readyz, /leader and /metrics: IP:PORT, or :PORT for all addresses [default: nowhere]' -r
complete -c leaderrun -l ready-when -d 'When /readyz says yes: waiting, which includes leading, or only leading' -r
complete -c leaderrun -l log-format -d 'How log lines on stderr look: text or json' -r
complete -c leaderrun -s v -l verbose -d 'Say more; twice: what the libraries say, too'
complete -c leaderrun -s q -l quiet -d 'Say only what goes wrong'
complete -c leaderrun -s h -l help -d 'Print help (see more with \'--help\')'
complete -c leaderrun -s V -l version -d 'Print version'
