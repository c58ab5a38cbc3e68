# Sourced by the scripts beside it: changes FILE [name]... prints the changes of a list, or those named, a line each.
# A name that the list has not got is an error.

changes() {
    local file=$1 line name
    shift
    for name in "$@"; do
        grep -qE -- "^$name(:|\$)" "$file" || { echo "error: $name is not in $file" >&2; return 2; }
    done
    local wanted=" $* "
    while IFS= read -r line; do
        case "$line" in '' | '#'*) continue ;; esac
        if [ "$wanted" = "  " ] || [[ "$wanted" == *" ${line%%:*} "* ]]; then echo "$line"; fi
    done <"$file"
}
