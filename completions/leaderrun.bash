# Completion of leaderrun for bash. Made by: leaderrun completion bash

_leaderrun() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} index
    # bash makes words of their own of = and what surrounds it.
    if [[ $current == '=' ]]; then
        current=
    elif [[ $previous == '=' ]]; then
        previous=${COMP_WORDS[COMP_CWORD-2]}
    fi
    COMPREPLY=()

    for ((index = 1; index < COMP_CWORD; index++)); do
        [[ ${COMP_WORDS[index]} == -- ]] || continue
        case ${COMP_WORDS[1]} in
            status|list|manifest|step-down|release|check|completion|man) return ;;
        esac
        if declare -F _comp_command_offset > /dev/null; then
            _comp_command_offset $((index + 1))
        elif declare -F _command_offset > /dev/null; then
            _command_offset $((index + 1))
        elif ((COMP_CWORD == index + 1)); then
            mapfile -t COMPREPLY < <(compgen -c -- "$current")
        else
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
        fi
        return
    done

    local words
    case ${COMP_WORDS[1]} in
        status)
            case $previous in
                -o|--output) mapfile -t COMPREPLY < <(compgen -W 'text json' -- "$current"); return ;;
                --kubeconfig) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
                --slots|--lock|-n|--namespace|--context|--as) return ;;
            esac
            words='--slots -o --output -w --watch --lock -n --namespace --kubeconfig --context --as -h --help'
            ;;
        list)
            case $previous in
                -o|--output) mapfile -t COMPREPLY < <(compgen -W 'text json' -- "$current"); return ;;
                --kubeconfig) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
                -n|--namespace|--context|--as) return ;;
            esac
            words='-n --namespace -A --all-namespaces -o --output -w --watch --kubeconfig --context --as -h --help'
            ;;
        manifest)
            case $previous in
                --kubeconfig) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
                --service-account|--lock|-n|--namespace|--context|--as|--slots|--owner|--pod-label|--service) return ;;
            esac
            words='--service-account --priority --lock -n --namespace --kubeconfig --context --as --slots --owner --pod-label --service -h --help'
            ;;
        step-down)
            case $previous in
                --kubeconfig) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
                --wait|--lock|-n|--namespace|--context|--as) return ;;
            esac
            words='--wait --lock -n --namespace --kubeconfig --context --as -h --help'
            ;;
        release)
            case $previous in
                --kubeconfig) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
                --observe|--lock|-n|--namespace|--context|--as) return ;;
            esac
            words='--force --observe --lock -n --namespace --kubeconfig --context --as -h --help'
            ;;
        doctor)
            case $previous in
                --on-lost) mapfile -t COMPREPLY < <(compgen -W 'exit rejoin' -- "$current"); return ;;
                --stop-signal) mapfile -t COMPREPLY < <(compgen -W 'TERM INT HUP QUIT USR1 USR2' -- "$current"); return ;;
                --wait-for) mapfile -t COMPREPLY < <(compgen -W 'main all' -- "$current"); return ;;
                --kubeconfig) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
                --ready-when) mapfile -t COMPREPLY < <(compgen -W 'waiting leading' -- "$current"); return ;;
                --notify) mapfile -t COMPREPLY < <(compgen -W 'leaderrun command' -- "$current"); return ;;
                --log-format) mapfile -t COMPREPLY < <(compgen -W 'text json' -- "$current"); return ;;
                --log-time) mapfile -t COMPREPLY < <(compgen -W 'elapsed wall none' -- "$current"); return ;;
                --lock|-n|--namespace|--slots|--owner|--identity|--wait|-E|--conflict-exit-code|--min-hold|--claim-delay|--preempt|--every|--lease-duration|--renew-deadline|--retry-period|--lost-grace|--kill-after|--max-run|--context|--as|--pod-label|--service|--pod|--port|--address|--http|--unhealthy-after) return ;;
            esac
            words='--lock -n --namespace --slots --owner --identity --wait -E --conflict-exit-code --min-hold --ignore-min-hold --claim-delay --preempt --every --on-lost --lease-duration --renew-deadline --retry-period --lost-grace --stop-signal --kill-after --wait-for --foreground --max-run --kubeconfig --context --as --pod-label --service --pod --port --address --http --ready-when --unhealthy-after --notify --log-format --log-time -v --verbose -q --quiet -h --help'
            words+=' --'
            ;;
        check)
            case $previous in
                --min-remaining) return ;;
            esac
            words='--min-remaining -h --help'
            ;;
        completion)
            words='-h --help bash zsh fish'
            ;;
        man)
            words='-h --help'
            ;;
        *)
            case $previous in
                --on-lost) mapfile -t COMPREPLY < <(compgen -W 'exit rejoin' -- "$current"); return ;;
                --stop-signal) mapfile -t COMPREPLY < <(compgen -W 'TERM INT HUP QUIT USR1 USR2' -- "$current"); return ;;
                --wait-for) mapfile -t COMPREPLY < <(compgen -W 'main all' -- "$current"); return ;;
                --kubeconfig) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
                --ready-when) mapfile -t COMPREPLY < <(compgen -W 'waiting leading' -- "$current"); return ;;
                --notify) mapfile -t COMPREPLY < <(compgen -W 'leaderrun command' -- "$current"); return ;;
                --log-format) mapfile -t COMPREPLY < <(compgen -W 'text json' -- "$current"); return ;;
                --log-time) mapfile -t COMPREPLY < <(compgen -W 'elapsed wall none' -- "$current"); return ;;
                --lock|-n|--namespace|--slots|--owner|--identity|--wait|-E|--conflict-exit-code|--min-hold|--claim-delay|--preempt|--every|--lease-duration|--renew-deadline|--retry-period|--lost-grace|--kill-after|--max-run|--context|--as|--pod-label|--service|--pod|--port|--address|--http|--unhealthy-after) return ;;
            esac
            words='--lock -n --namespace --slots --owner --identity --wait -E --conflict-exit-code --min-hold --ignore-min-hold --claim-delay --preempt --every --on-lost --lease-duration --renew-deadline --retry-period --lost-grace --stop-signal --kill-after --wait-for --foreground --max-run --kubeconfig --context --as --pod-label --service --pod --port --address --http --ready-when --unhealthy-after --notify --log-format --log-time -v --verbose -q --quiet -h --help -V --version'
            if ((COMP_CWORD == 1)); then words+=' status list manifest step-down release doctor check completion man'; else words+=' --'; fi
            ;;
    esac

    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}

complete -F _leaderrun leaderrun
