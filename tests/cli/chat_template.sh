#!/usr/bin/env bash
# Chat templates on the command line: apply-template, and chats that are written by the model's own template or a file.
source "$(dirname "$0")/support.bash" "$@"
make_model model
cat > chatml.jinja << 'END'
{%- if messages[0].role == 'assistant' %}{{ raise_exception('a question comes first') }}{% endif %}
{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}
{%- if tools %}{{ tools|tojson }}{% endif %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif -%}
END
echo '[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi <|im_end|>"}]' > messages.json
echo '[{"type": "function", "function": {"name": "f"}}]' > tools.json

# Without a template of its own a model needs one.
refused "has no chat template" "$qkv" tokenizer apply-template model --messages messages.json
accepted "$qkv" tokenizer apply-template model --messages messages.json --template chatml.jinja
printf '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi <|im_end|><|im_end|>\n<|im_start|>assistant\n' > expected
cmp -s out expected || complain "apply-template: $(cat out)"

cp chatml.jinja model/chat_template.jinja
accepted "$qkv" tokenizer apply-template model --messages messages.json --no-generation-prompt --tools tools.json
[ "$(tail -n 1 out)" = '[{"type": "function", "function": {"name": "f"}}]' ] || complain "tools: $(cat out)"
echo "{\"messages\": $(cat messages.json), \"tools\": $(cat tools.json)}" > both.json
stdin=both.json accepted "$qkv" tokenizer apply-template model --messages -
out_has '"name": "f"'

# What a message says is words: three turns begin, and the marker in the question is no token.
start=$("$qkv" tokenizer encode model '<|im_start|>' --no-special)
end=$("$qkv" tokenizer encode model '<|im_end|>' --no-special)
accepted "$qkv" tokenizer apply-template model --messages messages.json --ids
count() { tr ' ' '\n' < out | grep -cx "$1"; }
[ "$(count "$start")" = 3 ] && [ "$(count "$end")" = 2 ] || complain "ids: $(cat out)"
# shellcheck disable=SC2046
accepted "$qkv" tokenizer decode model --special $(cat out)
[ "$(cat out)" = "$(cat expected)" ] || complain "the ids decode to: $(cat out)"
accepted "$qkv" tokenizer apply-template model --messages messages.json --json
out_has '"message":1,"key":"content"'

# Errors name the file and the line, or repeat the template's own words.
echo '[{"role": "assistant", "content": "x"}]' > bad.json
refused "chat template, line 1: a question comes first" "$qkv" tokenizer apply-template model --messages bad.json
echo '[{"role": "user"}]' > bad.json
refused "has no attribute 'content'" "$qkv" tokenizer apply-template model --messages bad.json
printf 'a\n{%% if x %%}' > broken.jinja
refused "broken.jinja, line 2: {% if %} has no {% endif %}" \
  "$qkv" tokenizer apply-template model --messages messages.json --template broken.jinja
echo '{"a": 1}' > bad.json
refused "expected a list of messages" "$qkv" tokenizer apply-template model --messages bad.json

# A chat uses the model's own template, and all others on request.
echo hi > question
for form in auto chatml.jinja chatml qa plain; do
  stdin=question accepted "$qkv" chat model --max-tokens 3 --temperature 0 --template $form
  [ "$(cat out)" = '!!!' ] || complain "chat --template $form: $(cat out)"
done
echo "{{ raise_exception('not today') }}" > refusing.jinja
stdin=question refused "refusing.jinja, line 1: not today" "$qkv" chat model --template refusing.jinja
stdin=question refused "expected auto, chatml, qa, plain or a file" "$qkv" chat model --template nothing
finish
