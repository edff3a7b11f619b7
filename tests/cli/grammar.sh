#!/usr/bin/env bash
# Answers that keep to a grammar, from a model of zeros, whose tokens are all equally likely.
source "$(dirname "$0")/support.bash" "$@"
make_model model

schema='{"properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}, "b": {"type": "boolean"}, "c": {"$ref": "#/$defs/c"}},
         "required": ["a", "b", "c"], "$defs": {"c": {"enum": [null, "x"]}}}'
accepted "$qkv" generate model --prompt x --temperature 0 --json-schema "$schema"
[ "$(cat out)" = '{"a":0,"b":false,"c":"x"}' ] || complain "schema, greedy: $(cat out)"
printf '%s' "$schema" > schema.json
accepted "$qkv" generate model --prompt x --temperature 0 --json-schema-file schema.json --json
out_has '"text":"{\"a\":0,\"b\":false,\"c\":\"x\"}"'
out_has '"finish_reason":"stop"'

# By chance, too: white space, quotes and brackets come out right with every seed.
for seed in 1 2 3 4 5 6 7 8; do
  accepted "$qkv" generate model --prompt x --seed $seed --max-tokens 60 --json --json-schema \
    '{"type": "array", "items": {"type": ["boolean", "null"]}, "minItems": 1, "maxItems": 2}'
  grep -qE '"text":"\[(\\n|\\t| )*(true|false|null)(,(\\n|\\t| )*(true|false|null))?(\\n|\\t| )*\]"' out ||
    grep -q '"finish_reason":"\(length\|context\)"' out || complain "schema, seed $seed: $(cat out)"
  accepted "$qkv" generate model --prompt x --seed $seed --regex '[ab]{2,5}-\d{3}'
  grep -qxE '[ab]{2,5}-[0-9]{3}' out || complain "regex, seed $seed: $(cat out)"
done

printf '# moves\nroot ::= move{2} "."\nmove ::= [a-h] [1-8] " "?\n' > moves.gbnf
accepted "$qkv" generate model --prompt x --seed 3 --grammar-file moves.gbnf --verbose
grep -qxE '([a-h][1-8] ?){2}\.' out || complain "grammar: $(cat out)"
err_has "finished: stop"
accepted "$qkv" generate model --prompt x --grammar 'root ::= "€" [é]' --ignore-eos
[ "$(cat out)" = '€é' ] || complain "grammar, characters of several tokens: $(cat out)"
echo 'Yes or no?' > questions
stdin=questions accepted "$qkv" chat model --grammar 'root ::= "yes" | "no"'
grep -qxE 'yes|no' out || complain "chat: $(cat out)"

# Refused before a model is loaded.
refused "--grammar:1:10: expected a string, a set" "$qkv" generate none --prompt x --grammar 'root ::= )'
refused "moves.txt" "$qkv" generate none --prompt x --grammar-file moves.txt
refused "--json-schema: #/not: the keyword 'not' is not supported" "$qkv" generate none --prompt x --json-schema '{"not": {}}'
refused "--json-schema" "$qkv" generate none --prompt x --json-schema '{"type":'
refused "--regex:1:1: look-ahead and look-behind are not supported" "$qkv" generate none --prompt x --regex '(?=a)'
refused "expected only one of" "$qkv" generate none --prompt x --regex a --grammar 'root ::= "a"'
finish
