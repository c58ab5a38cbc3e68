# Sourced by the scripts beside it: changes FILE [name]... prints the changes of a list, or those named, a line each.

changes() {
    local file=$1 line
    shift
    local wanted=" $* "
    while IFS= read -r line; do
        case "$line" in '' | '#'*) continue ;; esac
        if [ "$wanted" = "  " ] || [[ "$wanted" == *" ${line%%:*} "* ]]; then echo "$line"; fi
    done <"$file"
}
