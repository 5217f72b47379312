# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_leaderrun_global_optspecs
    string join \n lock= n/namespace= identity= wait= min-hold= on-lost= lease-duration= renew-deadline= retry-period= lost-grace= stop-signal= kill-after= kubeconfig= context= as= pod-label= service= pod= port= address= http= ready-when= log-format= v/verbose q/quiet h/help V/version
end

function __fish_leaderrun_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_leaderrun_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_leaderrun_using_subcommand
    set -l cmd (__fish_leaderrun_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c leaderrun -n "__fish_leaderrun_needs_command" -l lock -d 'The lock: a Lease as [NAMESPACE/]NAME, a local file as file:PATH, or another kind as KIND:[NAMESPACE/]NAME' -r
complete -c leaderrun -n "__fish_leaderrun_needs_command" -s n -l namespace -d 'The namespace of a lock that names none [default: that of the kubeconfig\'s context or of the pod]' -r
complete -c leaderrun -n "__fish_leaderrun_needs_command" -l identity -d 'The name by which this candidate holds the lock [default: host name, _, UUID]' -r
complete -c leaderrun -n "__fish_leaderrun_needs_command" -l wait -d 'Give up with status 75 when the lock is not acquired within this time; 0s gives up as soon as a renewal shows a living holder [default: wait for ever]' -r
complete -c leaderrun -n "__fish_leaderrun_needs_command" -l min-hold -d 'Keep other candidates from running the command for this long after the lock was acquired, once the command has ended with status 0' -r
complete -c leaderrun -n "__fish_leaderrun_needs_command" -l on-lost -d 'What to do after the leadership was lost and the command is dead: exit, or rejoin to wait for the lock again' -r -f -a "exit\t''
rejoin\t'Wait for the lock again'"
complete -c leaderrun -n "__fish_leaderrun_needs_command" -l lease-duration -d 'How long the lock stays held without a renewal, in whole seconds' -r
complete -c leaderrun -n "__fish_leaderrun_needs_command" -l renew-deadline -d 'How long after the last renewal the command gets the stop signal' -r
complete -c leaderrun -n "__fish_leaderrun_needs_command" -l retry-period -d 'How often the lock is renewed' -r
complete -c leaderrun -n "__fish_leaderrun_needs_command" -l lost-grace -d 'The time from the stop signal to SIGKILL, also for what the command left running [default: half of the time between renew deadline and lease duration]' -r
complete -c leaderrun -n "__fish_leaderrun_needs_command" -l stop-signal -d 'The signal, by name or number, that the command gets when the leadership is lost' -r
complete -c leaderrun -n "__fish_leaderrun_needs_command" -l kill-after -d 'Kill the command this long after a TERM or INT was forwarded to it [default: never]' -r
complete -c leaderrun -n "__fish_leaderrun_needs_command" -l kubeconfig -d 'The kubeconfig to use [default: KUBECONFIG, ~/.kube/config, or the pod\'s service account]' -r -F
complete -c leaderrun -n "__fish_leaderrun_needs_command" -l context -d 'The context of the kubeconfig to use [default: its current context]' -r
complete -c leaderrun -n "__fish_leaderrun_needs_command" -l as -d 'The user to act as' -r
complete -c leaderrun -n "__fish_leaderrun_needs_command" -l pod-label -d 'Put this label on the leader\'s pod while its command runs, and on no other pod, for a Service that selects it' -r
complete -c leaderrun -n "__fish_leaderrun_needs_command" -l service -d 'Route this Service, which must have no selector, to the leader' -r
complete -c leaderrun -n "__fish_leaderrun_needs_command" -l pod -d 'The pod that gets the label [default: the host name]' -r
complete -c leaderrun -n "__fish_leaderrun_needs_command" -l port -d 'A port of the Service, with its name there where it has several: PORT, NAME:PORT or NAME:PORT/udp; several by commas or repetition' -r
complete -c leaderrun -n "__fish_leaderrun_needs_command" -l address -d 'The leader\'s address for the Service [default: the one from which it reaches the API server]' -r
complete -c leaderrun -n "__fish_leaderrun_needs_command" -l http -d 'Answer HTTP at this address, with /healthz, /readyz, /leader and /metrics: IP:PORT, or :PORT for all addresses [default: nowhere]' -r
complete -c leaderrun -n "__fish_leaderrun_needs_command" -l ready-when -d 'When /readyz answers 200: waiting (while waiting or leading) or leading (only while leading)' -r -f -a "waiting\t'While it waits, too, so that a rolling update goes on'
leading\t'Only while it leads, so that a Service leads to the leader'"
complete -c leaderrun -n "__fish_leaderrun_needs_command" -l log-format -d 'The format of log lines on stderr: text or json' -r -f -a "text\t''
json\t''"
complete -c leaderrun -n "__fish_leaderrun_needs_command" -s v -l verbose -d 'Log more; given twice, also what the libraries log'
complete -c leaderrun -n "__fish_leaderrun_needs_command" -s q -l quiet -d 'Log only warnings and errors'
complete -c leaderrun -n "__fish_leaderrun_needs_command" -s h -l help -d 'Print help'
complete -c leaderrun -n "__fish_leaderrun_needs_command" -s V -l version -d 'Print version'
complete -c leaderrun -n "__fish_leaderrun_needs_command" -a "status" -d 'Show who holds a lock, since when and for how long'
complete -c leaderrun -n "__fish_leaderrun_needs_command" -a "manifest" -d 'Print the service account of a lock, its rights and its priority, to be piped into kubectl apply -f -'
complete -c leaderrun -n "__fish_leaderrun_needs_command" -a "step-down" -d 'Ask the holder of a lock to stop its command and to release the lock'
complete -c leaderrun -n "__fish_leaderrun_needs_command" -a "doctor" -d 'Check what a command line of leaderrun will need, and say what to do about what is missing'
complete -c leaderrun -n "__fish_leaderrun_needs_command" -a "check" -d 'For the command: does this run still hold the lock?'
complete -c leaderrun -n "__fish_leaderrun_using_subcommand status" -l lock -d 'The lock: a Lease as [NAMESPACE/]NAME, a local file as file:PATH, or another kind as KIND:[NAMESPACE/]NAME' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand status" -s n -l namespace -d 'The namespace of a lock that names none [default: that of the kubeconfig\'s context or of the pod]' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand status" -l kubeconfig -d 'The kubeconfig to use [default: KUBECONFIG, ~/.kube/config, or the pod\'s service account]' -r -F
complete -c leaderrun -n "__fish_leaderrun_using_subcommand status" -l context -d 'The context of the kubeconfig to use [default: its current context]' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand status" -l as -d 'The user to act as' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand status" -s o -l output -d 'The format of the answer: text or json' -r -f -a "text\t''
json\t''"
complete -c leaderrun -n "__fish_leaderrun_using_subcommand status" -s h -l help -d 'Print help'
complete -c leaderrun -n "__fish_leaderrun_using_subcommand manifest" -l lock -d 'The lock: a Lease as [NAMESPACE/]NAME, a local file as file:PATH, or another kind as KIND:[NAMESPACE/]NAME' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand manifest" -s n -l namespace -d 'The namespace of a lock that names none [default: that of the kubeconfig\'s context or of the pod]' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand manifest" -l service-account -d 'The service account that the pods have [default: the name of the lock]' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand manifest" -l pod-label -d 'Put this label on the leader\'s pod while its command runs, and on no other pod, for a Service that selects it' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand manifest" -l service -d 'Route this Service, which must have no selector, to the leader' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand manifest" -s h -l help -d 'Print help'
complete -c leaderrun -n "__fish_leaderrun_using_subcommand step-down" -l lock -d 'The lock: a Lease as [NAMESPACE/]NAME, a local file as file:PATH, or another kind as KIND:[NAMESPACE/]NAME' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand step-down" -s n -l namespace -d 'The namespace of a lock that names none [default: that of the kubeconfig\'s context or of the pod]' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand step-down" -l kubeconfig -d 'The kubeconfig to use [default: KUBECONFIG, ~/.kube/config, or the pod\'s service account]' -r -F
complete -c leaderrun -n "__fish_leaderrun_using_subcommand step-down" -l context -d 'The context of the kubeconfig to use [default: its current context]' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand step-down" -l as -d 'The user to act as' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand step-down" -s h -l help -d 'Print help'
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -l lock -d 'The lock: a Lease as [NAMESPACE/]NAME, a local file as file:PATH, or another kind as KIND:[NAMESPACE/]NAME' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -s n -l namespace -d 'The namespace of a lock that names none [default: that of the kubeconfig\'s context or of the pod]' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -l identity -d 'The name by which this candidate holds the lock [default: host name, _, UUID]' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -l wait -d 'Give up with status 75 when the lock is not acquired within this time; 0s gives up as soon as a renewal shows a living holder [default: wait for ever]' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -l min-hold -d 'Keep other candidates from running the command for this long after the lock was acquired, once the command has ended with status 0' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -l on-lost -d 'What to do after the leadership was lost and the command is dead: exit, or rejoin to wait for the lock again' -r -f -a "exit\t''
rejoin\t'Wait for the lock again'"
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -l lease-duration -d 'How long the lock stays held without a renewal, in whole seconds' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -l renew-deadline -d 'How long after the last renewal the command gets the stop signal' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -l retry-period -d 'How often the lock is renewed' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -l lost-grace -d 'The time from the stop signal to SIGKILL, also for what the command left running [default: half of the time between renew deadline and lease duration]' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -l stop-signal -d 'The signal, by name or number, that the command gets when the leadership is lost' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -l kill-after -d 'Kill the command this long after a TERM or INT was forwarded to it [default: never]' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -l kubeconfig -d 'The kubeconfig to use [default: KUBECONFIG, ~/.kube/config, or the pod\'s service account]' -r -F
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -l context -d 'The context of the kubeconfig to use [default: its current context]' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -l as -d 'The user to act as' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -l pod-label -d 'Put this label on the leader\'s pod while its command runs, and on no other pod, for a Service that selects it' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -l service -d 'Route this Service, which must have no selector, to the leader' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -l pod -d 'The pod that gets the label [default: the host name]' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -l port -d 'A port of the Service, with its name there where it has several: PORT, NAME:PORT or NAME:PORT/udp; several by commas or repetition' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -l address -d 'The leader\'s address for the Service [default: the one from which it reaches the API server]' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -l http -d 'Answer HTTP at this address, with /healthz, /readyz, /leader and /metrics: IP:PORT, or :PORT for all addresses [default: nowhere]' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -l ready-when -d 'When /readyz answers 200: waiting (while waiting or leading) or leading (only while leading)' -r -f -a "waiting\t'While it waits, too, so that a rolling update goes on'
leading\t'Only while it leads, so that a Service leads to the leader'"
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -l log-format -d 'The format of log lines on stderr: text or json' -r -f -a "text\t''
json\t''"
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -s v -l verbose -d 'Log more; given twice, also what the libraries log'
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -s q -l quiet -d 'Log only warnings and errors'
complete -c leaderrun -n "__fish_leaderrun_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c leaderrun -n "__fish_leaderrun_using_subcommand check" -l min-remaining -d 'How long the lock must still be held, whatever happens' -r
complete -c leaderrun -n "__fish_leaderrun_using_subcommand check" -s h -l help -d 'Print help'
