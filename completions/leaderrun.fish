# Completion of leaderrun for fish. Made by: leaderrun completion fish

# Prints the position of -- among the words before the cursor, and fails if it is not there.
function __leaderrun_dashes
    set -l words (commandline -opc)
    contains -i -- -- $words
end

# Succeeds if the command line has this subcommand, or no subcommand if none is named.
function __leaderrun_has_subcommand
    __leaderrun_dashes > /dev/null
    and return 1
    set -l words (commandline -opc)
    set -l subcommands status list manifest step-down release doctor check completion man
    if test -n "$argv[1]"
        test "$words[2]" = "$argv[1]"
    else
        not contains -- "$words[2]" $subcommands
    end
end

function __leaderrun_at_first
    test (count (commandline -opc)) -eq 1
end

function __leaderrun_in_command
    __leaderrun_dashes > /dev/null
    or return 1
    set -l words (commandline -opc)
    not contains -- "$words[2]" status list manifest step-down release check completion man
end

complete -c leaderrun -f
complete -c leaderrun -n __leaderrun_in_command -x -a '(__fish_complete_subcommand --fcs-skip=(__leaderrun_dashes))'
complete -c leaderrun -n __leaderrun_at_first -a status -d 'Show who holds a lock, since when and for how long'
complete -c leaderrun -n __leaderrun_at_first -a list -d 'List the locks in a namespace: all Leases, and the locks that older programs keep in ConfigMaps and Endpoints'
complete -c leaderrun -n __leaderrun_at_first -a manifest -d 'Print the service account of a lock and its rights, to be piped into kubectl apply -f -'
complete -c leaderrun -n __leaderrun_at_first -a step-down -d 'Ask the holder of a lock to stop its command and to release the lock'
complete -c leaderrun -n __leaderrun_at_first -a release -d 'Release a lock whose holder is known to be dead, so that no candidate waits until it expires'
complete -c leaderrun -n __leaderrun_at_first -a doctor -d 'Check whether a command line of leaderrun would work, and print what to do if it would not'
complete -c leaderrun -n __leaderrun_at_first -a check -d 'Report to the command, by the exit status, whether its run still holds the lock'
complete -c leaderrun -n __leaderrun_at_first -a completion -d 'Print the completion for a shell'
complete -c leaderrun -n __leaderrun_at_first -a man -d 'Print the man page, for man -l'

complete -c leaderrun -n '__leaderrun_has_subcommand status' -l slots -x -d 'Show all slots of a lock with this number of slots'
complete -c leaderrun -n '__leaderrun_has_subcommand status' -s o -l output -x -a 'text json' -d 'The format of the answer'
complete -c leaderrun -n '__leaderrun_has_subcommand status' -s w -l watch -d 'Continue and print a line for each change'
complete -c leaderrun -n '__leaderrun_has_subcommand status' -l lock -x -d 'The lock'
complete -c leaderrun -n '__leaderrun_has_subcommand status' -s n -l namespace -x -d 'The namespace of a lock that names none'
complete -c leaderrun -n '__leaderrun_has_subcommand status' -l kubeconfig -r -F -d 'The kubeconfig to use'
complete -c leaderrun -n '__leaderrun_has_subcommand status' -l context -x -d 'The context of the kubeconfig to use'
complete -c leaderrun -n '__leaderrun_has_subcommand status' -l as -x -d 'The user to act as'
complete -c leaderrun -n '__leaderrun_has_subcommand status' -s h -l help -d 'Print help'

complete -c leaderrun -n '__leaderrun_has_subcommand list' -s n -l namespace -x -d 'The namespace'
complete -c leaderrun -n '__leaderrun_has_subcommand list' -s A -l all-namespaces -d 'List the locks of all namespaces'
complete -c leaderrun -n '__leaderrun_has_subcommand list' -s o -l output -x -a 'text json' -d 'The format of the answer'
complete -c leaderrun -n '__leaderrun_has_subcommand list' -s w -l watch -d 'Continue and print a line for each lock that changes'
complete -c leaderrun -n '__leaderrun_has_subcommand list' -l kubeconfig -r -F -d 'The kubeconfig to use'
complete -c leaderrun -n '__leaderrun_has_subcommand list' -l context -x -d 'The context of the kubeconfig to use'
complete -c leaderrun -n '__leaderrun_has_subcommand list' -l as -x -d 'The user to act as'
complete -c leaderrun -n '__leaderrun_has_subcommand list' -s h -l help -d 'Print help'

complete -c leaderrun -n '__leaderrun_has_subcommand manifest' -l service-account -x -d 'The service account of the pods'
complete -c leaderrun -n '__leaderrun_has_subcommand manifest' -l priority -d 'Also print a FlowSchema that lets a busy API server serve renewals before other requests'
complete -c leaderrun -n '__leaderrun_has_subcommand manifest' -l lock -x -d 'The lock'
complete -c leaderrun -n '__leaderrun_has_subcommand manifest' -s n -l namespace -x -d 'The namespace of a lock that names none'
complete -c leaderrun -n '__leaderrun_has_subcommand manifest' -l kubeconfig -r -F -d 'The kubeconfig to use'
complete -c leaderrun -n '__leaderrun_has_subcommand manifest' -l context -x -d 'The context of the kubeconfig to use'
complete -c leaderrun -n '__leaderrun_has_subcommand manifest' -l as -x -d 'The user to act as'
complete -c leaderrun -n '__leaderrun_has_subcommand manifest' -l slots -x -d 'Let this many candidates lead at once'
complete -c leaderrun -n '__leaderrun_has_subcommand manifest' -l owner -x -d 'Have Kubernetes delete the lock\'s objects together with their owner'
complete -c leaderrun -n '__leaderrun_has_subcommand manifest' -l pod-label -x -d 'Put this label on the leader\'s pod while its command runs'
complete -c leaderrun -n '__leaderrun_has_subcommand manifest' -l service -x -d 'Route this Service'
complete -c leaderrun -n '__leaderrun_has_subcommand manifest' -s h -l help -d 'Print help'

complete -c leaderrun -n '__leaderrun_has_subcommand step-down' -l wait -x -d 'Wait until the holder has released the lock'
complete -c leaderrun -n '__leaderrun_has_subcommand step-down' -l lock -x -d 'The lock'
complete -c leaderrun -n '__leaderrun_has_subcommand step-down' -s n -l namespace -x -d 'The namespace of a lock that names none'
complete -c leaderrun -n '__leaderrun_has_subcommand step-down' -l kubeconfig -r -F -d 'The kubeconfig to use'
complete -c leaderrun -n '__leaderrun_has_subcommand step-down' -l context -x -d 'The context of the kubeconfig to use'
complete -c leaderrun -n '__leaderrun_has_subcommand step-down' -l as -x -d 'The user to act as'
complete -c leaderrun -n '__leaderrun_has_subcommand step-down' -s h -l help -d 'Print help'

complete -c leaderrun -n '__leaderrun_has_subcommand release' -l force -d 'Confirm that the holder is dead'
complete -c leaderrun -n '__leaderrun_has_subcommand release' -l observe -x -d 'How long to wait for a renewal'
complete -c leaderrun -n '__leaderrun_has_subcommand release' -l lock -x -d 'The lock'
complete -c leaderrun -n '__leaderrun_has_subcommand release' -s n -l namespace -x -d 'The namespace of a lock that names none'
complete -c leaderrun -n '__leaderrun_has_subcommand release' -l kubeconfig -r -F -d 'The kubeconfig to use'
complete -c leaderrun -n '__leaderrun_has_subcommand release' -l context -x -d 'The context of the kubeconfig to use'
complete -c leaderrun -n '__leaderrun_has_subcommand release' -l as -x -d 'The user to act as'
complete -c leaderrun -n '__leaderrun_has_subcommand release' -s h -l help -d 'Print help'

complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l lock -x -d 'The lock'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -s n -l namespace -x -d 'The namespace of a lock that names none'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l slots -x -d 'Let this many candidates lead at once'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l owner -x -d 'Have Kubernetes delete the lock\'s objects together with their owner'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l identity -x -d 'The name by which this candidate holds the lock'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l wait -x -d 'Give up with status 75 when the lock is not acquired within this time'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -s E -l conflict-exit-code -x -d 'The status with which to give up when another candidate holds the lock'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l min-hold -x -d 'Keep other candidates from running the command for this long after the lock was acquired'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l ignore-min-hold -d 'Run the command although it is not due yet'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l claim-delay -x -d 'Leave a lock that is free to other candidates for this long'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l preempt -x -d 'Ask a leader with a longer --claim-delay to step down once this candidate has been its standby for this long'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l every -x -d 'Run the command again and again'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l on-lost -x -a 'exit rejoin' -d 'What to do after leadership was lost and the command is dead'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l lease-duration -x -d 'How long the lock stays held without a renewal'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l renew-deadline -x -d 'How long after the last renewal the command gets the stop signal'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l retry-period -x -d 'How often the lock is renewed'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l lost-grace -x -d 'The time from the stop signal to SIGKILL'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l stop-signal -x -a 'TERM INT HUP QUIT USR1 USR2' -d 'The signal that the command gets when leadership is lost'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l kill-after -x -d 'Kill the command if it has not ended this long after TERM'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l wait-for -x -a 'main all' -d 'When the command counts as ended'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l foreground -d 'Give the command the terminal even if leaderrun is part of a pipeline'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l max-run -x -d 'Stop the command when it has run for this long'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l kubeconfig -r -F -d 'The kubeconfig to use'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l context -x -d 'The context of the kubeconfig to use'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l as -x -d 'The user to act as'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l pod-label -x -d 'Put this label on the leader\'s pod while its command runs'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l service -x -d 'Route this Service'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l pod -x -d 'The name of this pod'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l port -x -d 'A port at which the leader\'s container listens'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l address -x -d 'The leader\'s address for the Service'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l http -x -d 'Answer HTTP at this address'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l ready-when -x -a 'waiting leading' -d 'When /readyz answers 200'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l unhealthy-after -x -d 'Let /healthz answer 503 when this candidate could not have led for this long'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l notify -x -a 'leaderrun command' -d 'The process that reports to systemd while the command runs'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l log-format -x -a 'text json' -d 'The format of log lines on stderr'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -l log-time -x -a 'elapsed wall none' -d 'The time at the beginning of a line in the text format'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -s v -l verbose -d 'Log more'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -s q -l quiet -d 'Log only warnings and errors'
complete -c leaderrun -n '__leaderrun_has_subcommand doctor' -s h -l help -d 'Print help (see more with \'--help\')'

complete -c leaderrun -n '__leaderrun_has_subcommand check' -l min-remaining -x -d 'How long the lock must remain held at least'
complete -c leaderrun -n '__leaderrun_has_subcommand check' -s h -l help -d 'Print help'

complete -c leaderrun -n '__leaderrun_has_subcommand completion' -s h -l help -d 'Print help'
complete -c leaderrun -n '__leaderrun_has_subcommand completion' -a 'bash zsh fish'

complete -c leaderrun -n '__leaderrun_has_subcommand man' -s h -l help -d 'Print help'

complete -c leaderrun -n __leaderrun_has_subcommand -l lock -x -d 'The lock'
complete -c leaderrun -n __leaderrun_has_subcommand -s n -l namespace -x -d 'The namespace of a lock that names none'
complete -c leaderrun -n __leaderrun_has_subcommand -l slots -x -d 'Let this many candidates lead at once'
complete -c leaderrun -n __leaderrun_has_subcommand -l owner -x -d 'Have Kubernetes delete the lock\'s objects together with their owner'
complete -c leaderrun -n __leaderrun_has_subcommand -l identity -x -d 'The name by which this candidate holds the lock'
complete -c leaderrun -n __leaderrun_has_subcommand -l wait -x -d 'Give up with status 75 when the lock is not acquired within this time'
complete -c leaderrun -n __leaderrun_has_subcommand -s E -l conflict-exit-code -x -d 'The status with which to give up when another candidate holds the lock'
complete -c leaderrun -n __leaderrun_has_subcommand -l min-hold -x -d 'Keep other candidates from running the command for this long after the lock was acquired'
complete -c leaderrun -n __leaderrun_has_subcommand -l ignore-min-hold -d 'Run the command although it is not due yet'
complete -c leaderrun -n __leaderrun_has_subcommand -l claim-delay -x -d 'Leave a lock that is free to other candidates for this long'
complete -c leaderrun -n __leaderrun_has_subcommand -l preempt -x -d 'Ask a leader with a longer --claim-delay to step down once this candidate has been its standby for this long'
complete -c leaderrun -n __leaderrun_has_subcommand -l every -x -d 'Run the command again and again'
complete -c leaderrun -n __leaderrun_has_subcommand -l on-lost -x -a 'exit rejoin' -d 'What to do after leadership was lost and the command is dead'
complete -c leaderrun -n __leaderrun_has_subcommand -l lease-duration -x -d 'How long the lock stays held without a renewal'
complete -c leaderrun -n __leaderrun_has_subcommand -l renew-deadline -x -d 'How long after the last renewal the command gets the stop signal'
complete -c leaderrun -n __leaderrun_has_subcommand -l retry-period -x -d 'How often the lock is renewed'
complete -c leaderrun -n __leaderrun_has_subcommand -l lost-grace -x -d 'The time from the stop signal to SIGKILL'
complete -c leaderrun -n __leaderrun_has_subcommand -l stop-signal -x -a 'TERM INT HUP QUIT USR1 USR2' -d 'The signal that the command gets when leadership is lost'
complete -c leaderrun -n __leaderrun_has_subcommand -l kill-after -x -d 'Kill the command if it has not ended this long after TERM'
complete -c leaderrun -n __leaderrun_has_subcommand -l wait-for -x -a 'main all' -d 'When the command counts as ended'
complete -c leaderrun -n __leaderrun_has_subcommand -l foreground -d 'Give the command the terminal even if leaderrun is part of a pipeline'
complete -c leaderrun -n __leaderrun_has_subcommand -l max-run -x -d 'Stop the command when it has run for this long'
complete -c leaderrun -n __leaderrun_has_subcommand -l kubeconfig -r -F -d 'The kubeconfig to use'
complete -c leaderrun -n __leaderrun_has_subcommand -l context -x -d 'The context of the kubeconfig to use'
complete -c leaderrun -n __leaderrun_has_subcommand -l as -x -d 'The user to act as'
complete -c leaderrun -n __leaderrun_has_subcommand -l pod-label -x -d 'Put this label on the leader\'s pod while its command runs'
complete -c leaderrun -n __leaderrun_has_subcommand -l service -x -d 'Route this Service'
complete -c leaderrun -n __leaderrun_has_subcommand -l pod -x -d 'The name of this pod'
complete -c leaderrun -n __leaderrun_has_subcommand -l port -x -d 'A port at which the leader\'s container listens'
complete -c leaderrun -n __leaderrun_has_subcommand -l address -x -d 'The leader\'s address for the Service'
complete -c leaderrun -n __leaderrun_has_subcommand -l http -x -d 'Answer HTTP at this address'
complete -c leaderrun -n __leaderrun_has_subcommand -l ready-when -x -a 'waiting leading' -d 'When /readyz answers 200'
complete -c leaderrun -n __leaderrun_has_subcommand -l unhealthy-after -x -d 'Let /healthz answer 503 when this candidate could not have led for this long'
complete -c leaderrun -n __leaderrun_has_subcommand -l notify -x -a 'leaderrun command' -d 'The process that reports to systemd while the command runs'
complete -c leaderrun -n __leaderrun_has_subcommand -l log-format -x -a 'text json' -d 'The format of log lines on stderr'
complete -c leaderrun -n __leaderrun_has_subcommand -l log-time -x -a 'elapsed wall none' -d 'The time at the beginning of a line in the text format'
complete -c leaderrun -n __leaderrun_has_subcommand -s v -l verbose -d 'Log more'
complete -c leaderrun -n __leaderrun_has_subcommand -s q -l quiet -d 'Log only warnings and errors'
complete -c leaderrun -n __leaderrun_has_subcommand -s h -l help -d 'Print help (see more with \'--help\')'
complete -c leaderrun -n __leaderrun_has_subcommand -s V -l version -d 'Print version'
