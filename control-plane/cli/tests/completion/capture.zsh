# capture.zsh SCRIPT LINE: what an interactive zsh that has sourced the script offers when the tabulator is pressed at the end
# of the line, one word a line. Sourced by itself in that zsh, it reports to the one outside.

if (( ! $+SPANMESH_INSIDE )); then
    zmodload zsh/zpty || exit 2
    export SPANMESH_INSIDE=1
    zpty shell zsh -f -i
    zpty -w shell "source ${(q)0} ${(q)1}"
    while zpty -r shell line && [[ $line != *READY* ]]; do :; done
    zpty -w -n shell "$2"$'\t'
    integer offered=0
    while zpty -r shell line; do
        if [[ $line == *OFFER* ]]; then offered=1
        elif [[ $line == *DONE* ]]; then exit 0
        elif (( offered )); then print -r -- ${line%$'\r\n'}
        fi
    done
    exit 3
fi

PROMPT=
setopt no_beep
autoload -Uz compinit && compinit -D -u
source $1
bindkey '^I' complete-word
zstyle ':completion:*' insert-tab false
offer() { print OFFER }
finish() { print DONE; exit }
compprefuncs=(offer)
comppostfuncs=(finish)

# Words that zsh only sorts out for itself are no offers.
compadd() {
    if [[ ${@[1,(i)(-|--)]} != *-(O|A|D)\ * ]]; then
        local -a words
        builtin compadd -A words "$@"
        (( $#words )) && print -rl -- $words
    fi
    builtin compadd "$@"
}
print READY
