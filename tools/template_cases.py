"""Cases for template_diff.py: fixed ones, conversations for chat templates, and random templates."""
import itertools
import json

# ---------------------------------------------------------------- conversations

TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "The weather at a place: \"now\" & <soon>.",
        "parameters": {"type": "object", "properties": {
            "place": {"type": "string", "description": "City,\ncountry", "enum": ["Köln", "Łódź"]},
            "days": {"type": "integer", "default": 3, "minimum": 1.0},
            "units": {"type": ["string", "null"], "nullable": True}},
            "required": ["place"]},
        "return": {"type": "string", "description": "what it is like"}}},
    {"type": "function", "function": {
        "name": "no_arguments", "description": "", "parameters": {"type": "object", "properties": {}}}},
]
CALL = [{"id": "call12345", "type": "function",
         "function": {"name": "get_weather", "arguments": {"place": "Köln", "days": 2, "x": 1.0, "l": [1, None, True]}}}]
CALL_TEXT = [{"id": "abcdefghi", "type": "function",
              "function": {"name": "get_weather", "arguments": "{\"place\": \"Köln\"}"}}]
DOCUMENTS = [{"title": "One", "text": "First text."}, {"title": "Two", "text": "Second\ntext.", "id": 7}]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def user(text="Hello there!"):
    return {"role": "user", "content": text}


def assistant(text="Hi. How can I help?", **more):
    return {"role": "assistant", "content": text, **more}


def system(text="You are helpful."):
    return {"role": "system", "content": text}


PARTS = {"role": "user", "content": [{"type": "text", "text": "Part one."}, {"type": "image"},
                                     {"type": "text", "text": " Part two. "}]}
THINKING = "<think>\nLet me see.\n</think>\n\nIt is 4."
CHATS = [
    [user()],
    [system(), user()],
    [system("  spaces \n"), user(" and \n more "), assistant("  left \n"), user("x\n")],
    [user("a"), assistant("b"), user("c"), assistant("d"), user("e")],
    [user("a"), assistant("b")],
    [system(), user("Umlaut ä, 汉字, 🙂, <tag> & \"quotes\" 'single' \\ {{ x }} {% y %}"), assistant("ok")],
    [user("2+2?"), assistant(THINKING), user("And 3+3?")],
    [user("2+2?"), assistant("4", reasoning_content="Easy."), user("And 3+3?"), assistant("6", reasoning_content="Hm.")],
    [user("q"), assistant("", thinking="Thought."), user("r")],
    [user("Weather?"), assistant("", tool_calls=CALL),
     {"role": "tool", "name": "get_weather", "content": "{\"t\": 20}", "tool_call_id": "call12345"}],
    [system(), user("Weather?"), {"role": "assistant", "tool_calls": CALL},
     {"role": "tool", "name": "get_weather", "content": "sunny", "tool_call_id": "call12345"},
     assistant("It is sunny."), user("Thanks")],
    [user("Weather?"), assistant("Looking.", tool_calls=CALL_TEXT),
     {"role": "tool", "content": "rain", "tool_call_id": "abcdefghi"},
     {"role": "tool", "content": "snow", "tool_call_id": "abcdefghi"}, user("ok")],
    [user("Both?"), assistant(None, tool_calls=CALL + CALL_TEXT),
     {"role": "tool", "name": "a", "content": {"k": [1, 2.5]}, "tool_call_id": "call12345"}],
    [PARTS],
    [system(), PARTS, assistant([{"type": "text", "text": "seen"}]), user([{"type": "text", "text": "more"}])],
    [{"role": "developer", "content": "Be brief."}, user(), assistant("fine"), user("again")],
    [assistant("first"), user("second")],
    [user("a"), user("b")],
    [system("a"), system("b"), user("c")],
    [{"role": "other", "content": "?"}],
    [user("")],
    [{"role": "user"}],
    [user("x"), {"role": "ipython", "content": "42"}],
    [user("x"), {"role": "function", "name": "f", "content": "42"}, assistant("y")],
    [user("/no_think hello"), assistant("hi"), user("again /think")],
    [{"role": "user", "name": "Bob", "content": "hi"}, assistant("hello", prefix=True)],
]
EXTRAS = [
    {}, {"tools": TOOLS}, {"tools": TOOLS[:1], "documents": DOCUMENTS}, {"tools": []},
    {"enable_thinking": False}, {"enable_thinking": True, "tools": TOOLS},
    {"thinking": True, "reasoning_effort": "high", "builtin_tools": ["browser", "python"], "tools": TOOLS},
    {"date_string": "01 Jan 2025", "tools_in_user_message": False, "tools": TOOLS},
    {"documents": DOCUMENTS, "citation_mode": "fast", "model_identity": "You are someone."},
]


def conversations():
    """The variables of many chats, as JSON."""
    for chat, extra, prompt in itertools.product(CHATS, EXTRAS, (True, False)):
        yield json.dumps({"tools": None, "documents": None, **TOKENS, **extra, "messages": chat,
                          "add_generation_prompt": prompt}, ensure_ascii=False)



# ---------------------------------------------------------------- fixed cases

CONTEXT = json.dumps({
    "s": "Hello World", "n": 3, "f": 2.5, "t": True, "none_": None, "l": [3, 1, 2], "big": 12345678901234567890, "one": 1.0,
    "d": {"b": 1, "a": {"x": [1, {"y": "z"}]}, "items": "shadowed", "pop": 5}, "u": "ÄÖ 汉字 🙂 ß",
    "people": [{"name": "Ann", "age": 31, "city": "B"}, {"name": "bob", "age": 25, "city": "a"}, {"name": "Cy", "city": "B"}],
    "tree": [{"n": "a", "k": [{"n": "b", "k": []}, {"n": "c", "k": [{"n": "d", "k": []}]}]}]}, ensure_ascii=False)

# One thing each; the comment groups say which.
FIXED = [(source, CONTEXT) for source in [
    # Literals and what they print as
    "{{ 1_000 }} {{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 1e3 }} {{ 2.50 }} {{ 1e16 }} {{ 1e-5 }} {{ 0.1 + 0.2 }} {{ 1E2 }}",
    "{{ 'a' 'b' \"c\" }} {{ 'it\\'s' }} {{ '\\x41\\u00e9\\n\\t\\101\\q' }} {{ \"q'q\" }}",
    "{{ [1, 'a', none, true, 2.0, (1,), (), {'k': [\"it's\"]}] }} {{ {1: 2, 'a': none} }} {{ ('a', 'b\"\\'c') }}",
    "{{ none }} {{ None }} {{ true }} {{ False }} {{ big }} {{ one }} {{ f }} {{ u }} {{ [u] }} {{ '\\x00\\x7f\\u2028' | list }}",
    # Operators
    "{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % -3 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 4 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ -2 ** 2 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }}",
    "{{ 2 + 3 * 4 - 1 }} {{ 'a' ~ 1 ~ none ~ 2.0 }} {{ 'ab' * 3 }} {{ [1] + [2] }} {{ (1,) * 2 }} {{ not 1 == 2 }}",
    "{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 == true }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 'a' in 'cat' }} {{ 2 not in l }} {{ 'b' in d }}",
    "{{ 1 and 0 or 'x' }} {{ none or '' }} {{ '' and x.y }} {{ t and l }} {{ 'a' if t else 'b' }} {{ 'a' if not t }}|{{ ('a' if not t) is undefined }}",
    "{{ 'a' + 1 }}", "{{ 1 + none }}", "{{ 1 / 0 }}", "{{ 1 < 'a' }}", "{{ 1 in 2 }}", "{{ 'x' in none }}", "{{ -'a' }}",
    # Look-up
    "{{ d.a.x[1].y }} {{ d['a']['x'][0] }} {{ d.items() | list | length }} {{ d['items'] }} {{ d.nope }}|{{ d.nope is defined }} {{ l[-1] }} {{ l[9] }}|{{ l.0 }}",
    "{{ s[0] }}{{ s[-1] }} {{ s[1:4] }} {{ s[::-1] }} {{ s[::2] }} {{ s[-3:] }} {{ l[:2] }} {{ l[5:] }} {{ l[::-1] }} {{ u[3:5] }} {{ u[-1] }} {{ (1, 2, 3)[1:] }} {{ range(9)[2:8:3] | list }}",
    "{{ nope.x }}", "{{ nope['x'] }}", "{{ d.nope.x }}", "{{ nope + 1 }}", "{{ nope() }}", "{{ none.x.y }}", "{{ d.pop }}|{{ d.pop is defined }}", "{{ d.pop('b') }}",
    "{{ l.append(1) }}", "{{ d.update({}) }}", "{{ s.__class__ }}|{{ s.__class__.__mro__ }}", "{{ nope }}|{{ nope | length }}|{{ nope | list }}|{{ nope == nope2 }}|{{ nope ~ 'x' }}|{{ not nope }}",
    "{% for x in nope %}x{% else %}none{% endfor %} {{ 'a' in nope }} {{ nope | default('d') }} {{ '' | default('d') }} {{ '' | default('d', true) }}", "{{ nope.x | default('d') }}", "{{ 1 ~ 2 + 3 }}",
    # Loops
    "{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}",
    "{% for x in l %}{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }} {% endfor %}{{ loop }}", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}",
    "{% for x in l if x > 1 %}{{ loop.index }}/{{ loop.length }}:{{ x }} {{ loop.nextitem }};{% else %}none{% endfor %}{% for x in l if x > 9 %}{% else %}none{% endfor %}",
    "{% for x in range(9) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}{% for x in l %}{% break %}{% else %}else{% endfor %}",
    "{% for t in tree recursive %}{{ loop.depth }}{{ t.n }}[{{ loop(t.k) if t.k }}]{% endfor %}", "{% for a, b in [[1, 2], (3, 4)] %}{{ a + b }} {% endfor %}{% for (a, b) in [[1, 2]] %}{{ a }}{% endfor %}",
    "{% for a, b in [[1, 2, 3]] %}{% endfor %}", "{% for x in 5 %}{% endfor %}", "{% for c in 'añ🙂' %}<{{ c }}>{% endfor %}", "{% for x in l %}{% set l = [] %}{{ l }}{{ x }}{% endfor %}{{ l }}",
    "{% for x in l %}{% for y in l %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}", "{{ loop is defined }}", "{% for loop in l %}{% endfor %}", "{% break %}",
    # Variables
    "{% set x = 1 %}{% for i in l %}{{ x }}{% set x = i %}{{ x }}{% endfor %}{{ x }}", "{% set x, y = 1, 2 %}{{ x + y }}{% set (a, b), c = (1, 2), 3 %}{{ a }}{{ b }}{{ c }}",
    "{% set ns = namespace(a=1, b=[]) %}{% for i in l %}{% set ns.a = ns.a + i %}{% set ns.b = ns.b + [i] %}{% endfor %}{{ ns.a }}{{ ns.b }}{{ ns['a'] }}{{ ns.c is defined }}{{ ns }}",
    "{% set s.x = 1 %}", "{% set nope.x = 1 %}", "{% set ns = namespace() %}{% set ns._x = 1 %}", "{% if false %}{% set q = 1 %}{% endif %}{{ q is defined }}{% if true %}{% set s = 2 %}{% endif %}{{ s }}",
    "{% for i in [1] %}{{ s }}{{ n }}{% endfor %}{% set s = 5 %}", "{% macro m() %}{{ s }}{% endmacro %}{% set s = 1 %}{{ m() }}{% set s = 2 %}{{ m() }}", "{% with a=1, b=n %}{{ a }}{{ b }}{% set n = 9 %}{{ n }}{% endwith %}{{ n }}{{ a }}",
    "{% set x %} a {{ n }} {% endset %}[{{ x }}]{% set x | trim | upper %} b {{ s }} {% endset %}[{{ x }}]", "{% set true = 1 %}", "{% set a.b.c = 1 %}", "{{ x }}{% set x = 3 %}{{ x }}",
    # Macros
    "{% macro f(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{{ varargs }}{{ kwargs }};{% endmacro %}{{ f(1) }}{{ f(1, 3, 4, 5, 6) }}{{ f(c=1, a=2, z=3) }}{{ f() }}{{ f.name }}{{ f.arguments }}",
    "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}", "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(b=2) }}", "{% macro f(a, a) %}{% endmacro %}", "{% macro f(a=1, b) %}{% endmacro %}",
    "{% macro f(x) %}<{{ caller(x) }}|{{ caller() }}>{% endmacro %}{% call(y='d') f(1) %}{{ y }}{{ n }}{% endcall %}{{ f is callable }}", "{% macro f() %}{{ caller() }}{% endmacro %}{{ f() }}",
    "{% macro f(n) %}{{ n }}{{ f(n - 1) if n > 0 }}{% endmacro %}{{ f(5) }}", "{% macro f(a, b=a ~ '!') %}{{ b }}{% endmacro %}{{ f('x') }}{{ f(*['p', 'q']) }}{{ f(**{'a': 'r'}) }}", "{{ f(a=1, a=2) }}",
    # Blocks of text
    "{% filter upper %}a{{ n }}b{% endfilter %}{% filter replace('a', 'b') | length %}aa{% endfilter %}", "{% filter indent(2) %}a\nb\n\nc{% endfilter %}", "{% raw %}{{ x }}{% y %}{# z #}{% endraw %}{# c #}",
    "{% block b %}[{{ s }}]{% endblock %}{{ self.b() }}", "{% autoescape true %}{{ '<a>' }}{{ '<b>' | safe }}{{ '<c>' | e }}{% endautoescape %}{{ '<d>' }}{{ '<e>' | e }}", "{% print 1, 'a' %}{% generation %}g{{ n }}{% endgeneration %}",
    "{% do 1 %}", "{% nosuch %}", "{% if %}{% endif %}", "{% if 1 %}", "{{ 1", "{% endif %}", "{{ }}", "{{ a b }}", "{{ (1 }}", "{# open", "{% raw %}",
    # White space
    "a\n  {% if t %}\n  b\n  {% endif %}\nc\n", "a \n {%- if t -%} \n b {%- endif +%} \n c", "  {%+ if t %}x{% endif %}\n\n", "{{ 1 -}}  \n {{- 2 }}\n{{ 3 }}\n", "a\n\t{# c #}\nb {#- d -#} \n e\r\nf\rg", "{% raw -%} \n x \n {%- endraw %}\ny", "\n{% set x = 1 %}\n\n{{ x }}\n\n",
    # Filters
    "{{ s | upper }} {{ s | lower }} {{ 'a-b c_d' | title }} {{ 'hELLO wORLD' | capitalize }} {{ '  x ' | trim }}| {{ 'xxaxx' | trim('x') }} {{ u | upper }} {{ 'ΑΣ' | lower }} {{ s | length }} {{ u | length }} {{ s | reverse }}",
    "{{ s | replace('l', 'L') }} {{ s | replace('l', 'L', 1) }} {{ s | wordcount }} {{ s | truncate(8) }} {{ s | truncate(5, true, '') }} {{ s | center(15) }}| {{ 'a\nb\n\nc' | indent }} {{ 'a\nb' | indent('> ', true) }} {{ 'a\n\nb' | indent(1, blank=true) }}",
    "{{ l | sort }} {{ l | sort(reverse=true) }} {{ people | sort(attribute='name') | map(attribute='name') | join(',') }} {{ ['b', 'A', 'c'] | sort }} {{ ['b', 'A'] | sort(case_sensitive=true) }} {{ people | sort(attribute='city,name') | map(attribute='name') | list }}",
    "{{ l | first }} {{ l | last }} {{ [] | first }}| {{ l | max }} {{ l | min }} {{ l | sum }}", "{{ people | sum('age', 0) }}", "{{ people | selectattr('age', 'defined') | sum(attribute='age') }} {{ l | sum(start=10) }} {{ people | map(attribute='age', default=0) | max }}",
    "{{ l | join }} {{ l | join(', ') }} {{ people | join('|', attribute='name') }} {{ l | map('string') | map('upper') | join }} {{ l | list }} {{ 'abc' | list }} {{ d | list }} {{ l | batch(2) | list }} {{ l | batch(2, 'x') | list }} {{ l | slice(2) | list }} {{ l | slice(2, 'x') | list }}",
    "{{ l | select('odd') | list }} {{ l | reject('odd') | list }} {{ l | select('>', 1) | list }} {{ l | select | list }} {{ people | selectattr('city', 'equalto', 'B') | map(attribute='name') | list }} {{ people | rejectattr('age') | list }} {{ people | selectattr('age', 'undefined') | list | length }}",
    "{% for g in people | groupby('city') %}{{ g.grouper }}:{{ g.list | length }}{{ g[0] }};{% endfor %}{% for k, v in people | groupby('age', default=0) %}{{ k }};{% endfor %}", "{{ d | dictsort | map('first') | list }} {{ {'B': 1, 'a': 0} | dictsort }} {{ {'B': 1, 'a': 0} | dictsort(true) }} {{ {'B': 1, 'a': 0} | dictsort(by='value') }} {{ d | items | list | length }}",
    "{{ [1, 1.0, 'a', 'A', true] | unique | list }} {{ ['a', 'A'] | unique(true) | list }} {{ '3.7' | int }} {{ 'x' | int }} {{ 'x' | int(5) }} {{ '0x1F' | int(base=16) }} {{ '2.5' | float }} {{ 'x' | float }} {{ 3.7 | int }} {{ -5 | abs }} {{ ' 12 ' | int }} {{ true | int }}",
    "{{ 2.5 | round }} {{ 3.5 | round }} {{ 2.675 | round(2) }} {{ 1234 | round(-2) }} {{ 2.1 | round(0, 'ceil') }} {{ 2.19 | round(1, 'floor') }} {{ 5 | round }} {{ 1e10 | round }} {{ '%.2f' | format(3.14159) }} {{ '%s-%s' | format('a', 1) }} {{ '%(a)s' | format(a=1) }}",
    "{{ d | tojson }} {{ [1.0, big, 1e16, none, true, 'é\"\\\\\\n\\x01/<>&'] | tojson }} {{ 'é🙂' | tojson(ensure_ascii=true) }} {{ {'b': 1, 'a': [1, {}]} | tojson(indent=2) }} {{ [] | tojson(indent=2) }} {{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }} {{ [1, 2] | tojson(separators=(',', ':')) }} {{ {1: 2, none: 3, true: 4} | tojson }}",
    "{{ nope | tojson }}", "{{ l | map('upper') | tojson }}", "{{ range(3) | tojson }}", "{{ 'a b/c?d=é&' | urlencode }} {{ {'a': 1, 'b c': 'd/e'} | urlencode }} {{ {'a': 1, 'b': none, 'c': '<'} | xmlattr }} {{ '<a href=\"x\">' | escape }} {{ 1000000 | filesizeformat }} {{ 1024 | filesizeformat(true) }}",
    "{{ s | attr('upper') is callable }} {{ d | attr('a') }}| {{ l | map('default', 1) | list }} {{ l | map('nosuch') | list }}", "{{ l | map }}", "{{ s | nosuch }}", "{% if false %}{{ s | nosuch }}{% endif %}ok", "{% if true %}{{ s | nosuch }}{% endif %}", "{{ 'x' if t else s | nosuch }}",
    # Tests
    "{{ 1 is odd }} {{ 2 is even }} {{ 9 is divisibleby 3 }} {{ n is defined }} {{ none is none }} {{ s is string }} {{ 1 is number }} {{ true is number }} {{ 1 is integer }} {{ true is integer }} {{ 1.0 is float }} {{ true is boolean }} {{ d is mapping }} {{ l is sequence }} {{ d is sequence }} {{ s is iterable }} {{ 1 is iterable }} {{ nope is iterable }}",
    "{{ 'a' is lower }} {{ 'A' is upper }} {{ 1 is eq 1 }} {{ 1 is sameas true }} {{ none is sameas none }} {{ 'a' is in 'abc' }} {{ 2 is not in l }} {{ 'upper' is filter }} {{ 'x' is test }} {{ 3 is gt 2 }} {{ s is not none }} {{ range is callable }} {{ true is true }} {{ 1 is true }} {{ s is escaped }}",
    "{{ s is nosuch }}", "{{ 1 is odd is even }}",
    # Methods
    "{{ s.upper() }} {{ s.split() }} {{ 'a,b,,c'.split(',') }} {{ 'a b c'.split(' ', 1) }} {{ 'a.b.c'.rsplit('.', 1) }} {{ ' x '.strip() }}|{{ 'xxaxx'.lstrip('x') }} {{ s.startswith('He') }} {{ s.endswith(('d', 'x')) }} {{ s.find('o') }} {{ s.rfind('o') }} {{ s.find('z') }} {{ s.count('l') }} {{ s.replace('l', 'L', 1) }} {{ ', '.join(['a', 'b']) }}",
    "{{ 'a\nb\r\nc'.splitlines() }} {{ s.title() }} {{ s.swapcase() }} {{ '7'.zfill(3) }} {{ 'a'.ljust(3, '.') }} {{ 'a'.rjust(3) }} {{ 'a=b=c'.partition('=') }} {{ 'abc'.removeprefix('a') }} {{ '12'.isdigit() }} {{ 'a1'.isalnum() }} {{ ' '.isspace() }} {{ 'ß'.upper() }} {{ 'İ'.lower() | length }} {{ s.index('W') }}",
    "{{ '{} {}'.format(1, 'a') }} {{ '{0}{1}{0}'.format('a', 'b') }} {{ '{a[k]} {b.x}'.format(a={'k': 1}, b={'x': 2}) }} {{ '{:>5}|{:<5}|{:^5}|{:05d}|{:.2f}|{:,}|{:x}|{:%}'.format('a', 'b', 'c', 42, 2.5, 1234567, 255, 0.5) }} {{ '{!r}'.format('a') }} {{ '{{}}'.format() }}",
    "{{ 'a'.join([1]) }}", "{{ s.index('zz') }}", "{{ s.nosuch() }}", "{{ d.get('b') }} {{ d.get('zz') }} {{ d.get('zz', 4) }} {{ d.keys() }} {{ d.values() | list | length }} {{ l.index(2) }} {{ l.count(1) }} {{ (1, 2).index(2) }} {{ (5).bit_length() }} {{ (2.0).is_integer() }}",
    "{{ '%s %d %05.1f %x %r %% %-4s| %+d' % ('a', 3.9, 2.55, 255, 'q', 'l', 5) }} {{ '%(a)s' % {'a': 1} }}", "{{ '%d' % 'a' }}", "{{ '%s' % (1, 2) }}", "{{ '%s %s' % 1 }}",
    # Globals
    "{{ range(3) | list }} {{ range(5, 1, -2) | list }} {{ range(3) }} {{ dict(a=1, **{'b': 2}) }} {{ dict([['x', 1]]) }} {{ dict.fromkeys(['a'], 0) }} {% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }} {% set j = joiner('-') %}{{ j() }}a{{ j() }}b",
    "{{ range(100001) | length }}", "{{ range(1, 2, 0) }}", "{{ raise_exception('no') }}", "{{ namespace(_a=1) }}", "{{ strftime_now('%Y') | int > 2000 }}{{ strftime_now('x%%y') }}{{ strftime_now('') }}",
]]


# ---------------------------------------------------------------- random cases

STRINGS = ["", "a", "abc", "Hello World", "  padded \n", "x,y,,z", "a.b.c", "ÄÖÜ straße", "汉字 and kana かな", "🙂👍🏽",
           "line1\nline2\r\nline3", "tab\there", "it's", 'say "hi"', "<b>&</b>", "42", "-7", "3.5", "1e3", "0x1F", "12_3",
           "True", "none", "ΑΣ ΣΑΣ", "ǆ ǅ ﬁ İ", "e\u0301", "\u00a0nbsp\u2003", "a-b (c) [d] {e}", "%s and %d", "{} {0} {a}",
           "UPPER", "lower", "Title Case", "²³½", "\x00\x1f\x7f", "a\u2028b\u0085c", "aaaa", "\\", "x" * 30,
           "the quick brown fox jumps over the lazy dog"]
NAMES = ["a", "b", "c", "s", "n", "l", "d", "m", "x", "y", "ns", "u"]
KEYS = ["a", "b", "k", "key", "items", "name", "0", "x y"]
TEXTS = ["", " ", "\n", "text", " text ", "\n  ", "  \n", "a\nb", "\t", "{", "}", "%", "#", "é", "\n\n", " \n \n "]
FILTERS = {  # name: arguments, each of a kind
    "abs": "", "batch": "i?v", "capitalize": "", "center": "?i", "default": "v?b", "d": "?v", "dictsort": "?b",
    "escape": "", "e": "", "first": "", "float": "?v", "int": "?v?i", "items": "", "join": "?s", "last": "", "length": "",
    "count": "", "list": "", "lower": "", "max": "", "min": "", "replace": "ss?i", "reverse": "", "round": "?i",
    "safe": "", "slice": "i?v", "sort": "?b", "string": "", "sum": "", "title": "", "tojson": "", "trim": "?s",
    "truncate": "?i?b?s?i", "unique": "", "upper": "", "urlencode": "", "wordcount": "", "indent": "?i?b?b",
    "attr": "s", "forceescape": "", "xmlattr": "", "filesizeformat": "?b", "format": "v",
}
FILTER_TEXTS = ["map('upper')", "map(attribute='a')", "map(attribute='k', default='-')", "map('default', 0)", "map('length')",
                "select", "select('string')", "select('defined')", "reject('none')", "select('odd')", "select('in', l)",
                "selectattr('a')", "selectattr('a', 'equalto', 1)", "rejectattr('k', 'defined')", "select('>', 1)",
                "groupby('a')", "groupby('k', default=0)", "sort(attribute='a')", "sort(reverse=true)", "sum(attribute='a')",
                "sum(start=2)", "join(attribute='a')", "join(', ')", "max(attribute='a')", "min(case_sensitive=true)",
                "unique(attribute='a')", "unique(case_sensitive=true)", "dictsort(by='value')", "dictsort(reverse=true)",
                "tojson(indent=2)", "tojson(indent=0)", "tojson(ensure_ascii=true)", "tojson(separators=(',', ':'))",
                "tojson(sort_keys=true)", "tojson(indent=1, sort_keys=true)", "tojson(indent='\\t')", "round(1, 'floor')",
                "round(2, method='ceil')", "indent(width=2, first=true)", "indent('> ')", "map('int')|sum", "list|tojson",
                "map('tojson')|list", "batch(2)|list", "slice(2)|map('list')|list", "map('reverse')|map('join')|list",
                "int(base=16)", "int(default=-1)", "trim(chars='xa ')", "replace('a', 'b', count=1)", "items|list",
                "default('z', true)", "default(value='z')", "truncate(9)", "truncate(9, true, '', 0)", "wordcount()",
                "string|length", "format(1, 2)", "map('nosuch')|list", "select('nosuch')|list", "first|default('none')"]
TESTS = ["defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "true", "false", "mapping",
         "sequence", "iterable", "callable", "odd", "even", "lower", "upper", "escaped", "divisibleby 2", "divisibleby(3)",
         "eq 1", "== 1", "ne(2)", "in l", "in 'abc'", "gt 1", "lt 2", "ge 0", "le(0)", "sameas none", "sameas true", "filter",
         "test", "equalto 'a'", "greaterthan 0", "lessthan 5", "not defined", "not none", "not in d"]
METHODS = ["upper()", "lower()", "title()", "capitalize()", "strip()", "lstrip()", "rstrip()", "strip('xa')", "rstrip('\\n')",
           "split()", "split(',')", "split(none, 1)", "split(' ', maxsplit=1)", "split(sep='a')", "rsplit('.', 1)", "rsplit()",
           "splitlines()", "splitlines(true)", "startswith('a')", "startswith(('a', 'H'))", "endswith('\\n')", "find('b')",
           "find('a', 1)", "find('l', -3, -1)", "rfind('l')", "index('b')", "count('l')", "count('')", "replace('a', 'X')",
           "replace('', '-')", "replace('l', '', 1)", "join(l)", "join(['a', 'b'])", "join(d)", "isdigit()", "isalpha()",
           "isalnum()", "isspace()", "isupper()", "islower()", "istitle()", "isnumeric()", "isdecimal()", "isidentifier()",
           "isprintable()", "isascii()", "zfill(6)", "ljust(6, '.')", "rjust(6)", "center(7, '*')", "partition(',')",
           "rpartition('.')", "removeprefix('a')", "removesuffix('c')", "swapcase()", "casefold()", "expandtabs(4)",
           "format(1, b=2)", "format('x', a=l)", "encode", "items()", "keys()", "values()", "get('a')", "get('zz', 5)", "get('k')",
           "copy()", "index(1)", "count(1)", "append(1)", "pop()", "update({})", "clear()", "sort()", "nosuch()", "is_integer()",
           "bit_length()", "real", "__class__", "a", "k", "items", "keys", "name", "_x"]
FORMATS = ["'%s'", "'%d'", "'%5.2f'", "'%r'", "'%x'", "'%-6s|'", "'%+d'", "'%05d'", "'%e'", "'%g'", "'%%'", "'%(a)s'", "'%c'",
           "'%i and %s'", "'%.3s'", "'%o'", "'%#x'", "'% d'", "'%10s'", "'%.3d'", "'%G'", "'%5%'"]
SPECS = ["", ">8", "<8", "^8", "*^9", "05", "+", ".2f", ",", "_", "x", "X", "o", "b", "#x", "e", "g", "%", ".3", "8.3f", "=+8",
         "d", "s", ".2s", "c", "n", "010.3f", ",.1f", " d", "#b", "08b", ".0f", ".1%", "G", "é>6", "-^7", "<", "z"]


class Generator:
    """Random templates over a random context; many fail, as often with one as with the other."""

    def __init__(self, rng):
        self.rng = rng

    def chance(self, p):
        return self.rng.random() < p

    def case(self):
        self.macros, self.in_loop = [], False
        kind = self.rng.random()
        if kind < 0.25:
            source = "{{ " + self.expr(self.rng.randint(1, 5)) + " }}"
        elif kind < 0.35:
            source = self.whitespace()
        elif kind < 0.45:
            source = self.formatting()
        else:
            source = self.body(self.rng.randint(1, 4))
        return source, json.dumps(self.context(), ensure_ascii=self.chance(0.5))

    # ------------------------------------------------------------ values

    def scalar(self):
        return self.rng.choice([
            None, True, False, 0, 1, 2, -1, 3, 7, 10, 255, -5, 1.0, 2.5, -0.5, 0.0, 1e16, 1.5e-7, 123456789.125, 10**15, 2**53,
            2**62, 12345678901234567890, 0.1, 1e22, -0.0, 3.14159] + STRINGS[:25] + ["a", "b", "abc"] * 3)

    def value(self, depth=2):
        kind = self.rng.random()
        if depth == 0 or kind < 0.5:
            return self.scalar()
        n = self.rng.randint(0, 4)
        if kind < 0.7:
            return [self.value(depth - 1) for _ in range(n)]
        if kind < 0.78:
            return [self.rng.randint(-3, 9) for _ in range(n)]
        if kind < 0.84:
            return [self.rng.choice(STRINGS) for _ in range(n)]
        if kind < 0.9:
            return [{"a": self.rng.choice([1, 2, 0, "x", "X", None]), "k": self.value(0)} for _ in range(n)]
        return {self.rng.choice(KEYS): self.value(depth - 1) for _ in range(n)}

    def context(self):
        c = {name: self.value() for name in self.rng.sample(NAMES[:9], self.rng.randint(3, 8))}
        if self.chance(0.7):
            c["s"] = self.rng.choice(STRINGS)
        if self.chance(0.7):
            c["l"] = self.rng.choice([[1, 2, 3], ["b", "A", "c"], [3, 1, 2, 1], [], [[1, 2], [3, 4]], [{"a": 2}, {"a": 1, "k": 3}]])
        if self.chance(0.7):
            c["d"] = self.rng.choice([{"a": 1, "b": "two"}, {"k": [1, 2], "a": None}, {}, {"b": {"a": 1}, "items": 5}])
        return c

    # ------------------------------------------------------------ expressions

    def literal(self):
        r = self.rng
        return r.choice([
            lambda: str(r.choice([0, 1, 2, 3, 5, 10, -1, 100, "1_000", "0x1f", "0b11", "0o17", "00"])),
            lambda: str(r.choice([1.5, 0.1, "1e3", "2.50", "1e-5", "1_0.5", "1E+2", 3.0])),
            lambda: self.string(), lambda: self.string(), lambda: self.string() + " " + self.string(),
            lambda: r.choice(["true", "false", "none", "True", "False", "None"])])()

    def string(self):
        text = self.rng.choice(STRINGS)
        if self.chance(0.1):
            return self.rng.choice([r"'\n'", r"'\x41\u00e9'", r"'\101'", r"'a\qb'", "'a\\\nb'", r"'\é'", r'"\U0001F642"', r"'\\'",
                                    r"'\''", r'"\t\r\a\0"'])
        quote = self.rng.choice("'\"")
        body = text.replace("\\", "\\\\").replace(quote, "\\" + quote)
        return quote + body + quote

    def integer(self):
        return self.rng.choice(["0", "1", "2", "3", "-1", "-2", "5", "n", "10", "none"])

    def argument(self, kind, depth):
        if kind == "i":
            return self.integer()
        if kind == "s":
            return self.string() if self.chance(0.8) else self.expr(depth - 1)
        if kind == "b":
            return self.rng.choice(["true", "false"])
        return self.expr(depth - 1)

    def filter_call(self, depth):
        if self.chance(0.35):
            return self.rng.choice(FILTER_TEXTS)
        name = self.rng.choice(list(FILTERS))
        args, optional = [], False
        for kind in FILTERS[name]:
            if kind == "?":
                optional = True
                continue
            if optional and self.chance(0.6):
                break
            args.append(self.argument(kind, depth))
        return name + ("(" + ", ".join(args) + ")" if args or self.chance(0.1) else "")

    def atom(self):
        r = self.rng.random()
        if r < 0.55:
            return self.rng.choice(NAMES)
        if r < 0.6 and self.in_loop:
            return "loop." + self.rng.choice(["index", "index0", "first", "last", "length", "revindex", "revindex0", "previtem",
                                              "nextitem", "depth", "depth0", "cycle('a', 'b')", "changed(x)", "nope"])
        if r < 0.65 and self.macros:
            return self.macro_call(1)
        return self.literal()

    def expr(self, depth):
        if depth <= 0:
            return self.atom()
        r, e = self.rng, lambda: self.expr(depth - 1)
        return r.choice([
            self.atom, self.atom,
            lambda: f"{e()} | {self.filter_call(depth)}", lambda: f"{e()}|{self.filter_call(depth)}",
            lambda: f"{e()} | {self.filter_call(depth)}",
            lambda: f"{e()}.{r.choice(METHODS)}", lambda: f"({e()}).{r.choice(METHODS)}", lambda: f"s.{r.choice(METHODS)}",
            lambda: f"{self.string()}.{r.choice(METHODS)}",
            lambda: f"{e()}[{self.key(depth)}]", lambda: f"{r.choice(NAMES)}[{self.subscript(depth)}]",
            lambda: f"{e()} {r.choice(['+', '-', '*', '/', '//', '%', '**', '~', '~', '+'])} {e()}",
            lambda: f"{e()} {r.choice(['==', '!=', '<', '<=', '>', '>=', 'in', 'not in', 'and', 'or'])} {e()}",
            lambda: f"{e()} {r.choice(['<', '==', '>='])} {e()} {r.choice(['<', '!=', 'in'])} {e()}",
            lambda: f"not {e()}", lambda: f"-{e()}", lambda: f"+{e()}", lambda: f"({e()})",
            lambda: f"{e()} is {r.choice(TESTS)}", lambda: f"{e()} is {r.choice(TESTS)}",
            lambda: f"{e()} if {e()} else {e()}", lambda: f"{e()} if {e()}",
            lambda: "[" + ", ".join(e() for _ in range(r.randint(0, 3))) + "]",
            lambda: "(" + ", ".join(e() for _ in range(r.randint(0, 3))) + ("," if self.chance(0.5) else "") + ")",
            lambda: "{" + ", ".join(f"{self.string() if self.chance(0.7) else e()}: {e()}" for _ in range(r.randint(0, 3))) + "}",
            lambda: f"range({', '.join(r.choice(['0', '1', '3', '5', '-1', 'n']) for _ in range(r.randint(1, 3)))})",
            lambda: f"dict({r.choice(['', 'a=1', 'd', 'd, b=' + e(), '[[1, 2]]', 'l'])})",
            lambda: f"namespace({r.choice(['', 'a=1', 'd', 'a=' + e() + ', b=2'])})",
            lambda: f"{r.choice(FORMATS)} % {r.choice([e(), '(' + e() + ', ' + e() + ')', 'd'])}",
            lambda: f"'{{:{r.choice(SPECS)}}}'.format({e()})",
            lambda: f"{r.choice(NAMES)}({r.choice(['', e(), 'a=1', '*l', '**d', e() + ', *l, **d'])})",
        ])()

    # Slices are of names only: jinja2 folds the slice of a literal that has none to undefined.
    def subscript(self, depth):
        if self.chance(0.5):
            parts = [self.integer() if self.chance(0.6) else "" for _ in range(self.rng.choice([2, 2, 3]))]
            return ":".join(parts)
        return self.key(depth)

    def key(self, depth):
        return self.rng.choice([self.integer(), "'" + self.rng.choice(KEYS) + "'", self.expr(depth - 2)])

    def formatting(self):
        r = self.rng
        number = r.choice(["0", "1", "-1", "42", "255", "-1234567", "1234567.891", "0.5", "-2.5", "1e10", "1e-7", "true", "s", "n",
                           "123456789", "0.0", "1e16", "99999.5", "2.675", "'text'", "none", "l", "12345678901234567890"])
        spec = r.choice(SPECS) if self.chance(0.6) else "".join([
            r.choice(["", "", "<", ">", "^", "=", "*<", "0>", "é^"]), r.choice(["", "+", "-", " "]), r.choice(["", "#"]),
            r.choice(["", "0"]), r.choice(["", "5", "12"]), r.choice(["", ",", "_"]), r.choice(["", ".0", ".3", ".10"]),
            r.choice(["", "d", "f", "e", "g", "s", "x", "b", "o", "%", "c", "G", "E", "X", "n"])])
        if self.chance(0.4):
            flags = "".join(r.sample(["-", "+", " ", "0", "#"], r.randint(0, 2)))
            return "{{ '%" + flags + r.choice(["", "3", "10"]) + r.choice(["", ".0", ".2", ".8"]) + r.choice("sdrifFeEgGxXoca") + f"|' % {number} }}}}"
        if self.chance(0.3):
            return "{{ %s | round(%s%s) }}" % (number, r.choice(["0", "1", "2", "-1", "-2", "3"]),
                                               r.choice(["", ", 'floor'", ", 'ceil'", ", 'common'"]))
        field = r.choice(["", "0", "a", "0!r", "!s", "a[0]", "a.b", "0[k]", "!a", "b[a]"])
        return "{{ '<{%s:%s}>'.format(%s, a=%s, b=d) }}" % (field, spec, number, r.choice(NAMES))

    # ------------------------------------------------------------ statements

    def open(self, text):
        return "{%" + self.rng.choice(["", "", "", "-", "+"]) + " " + text + " " + self.rng.choice(["", "", "", "-", "+"]) + "%}"

    def text(self):
        return self.rng.choice(TEXTS)

    def whitespace(self):
        """Tags among white space only."""
        parts = []
        for _ in range(self.rng.randint(1, 8)):
            parts.append(self.text())
            parts.append(self.rng.choice([
                lambda: self.open("set x = 1"), lambda: self.open("if true") + self.text() + self.open("endif"),
                lambda: "{#" + self.rng.choice(["", "-", "+"]) + self.text() + self.rng.choice(["", "-", "+"]) + "#}",
                lambda: "{{" + self.rng.choice(["", "-", "+"]) + " 'v' " + self.rng.choice(["", "-"]) + "}}",
                lambda: self.open("raw") + self.text() + "{{ x }}" + self.text() + self.open("endraw"),
                lambda: self.open("for i in [1, 2]") + self.text() + "{{ i }}" + self.text() + self.open("endfor"),
                lambda: self.open("generation") + self.text() + self.open("endgeneration")])())
        return "".join(parts) + self.text()

    def body(self, depth):
        return "".join(self.text() + self.statement(depth) for _ in range(self.rng.randint(1, 4))) + self.text()

    def macro_call(self, depth):
        args = [self.expr(depth) for _ in range(self.rng.randint(0, 3))]
        args += [f"{name}={self.expr(depth)}" for name in self.rng.sample(["a", "b", "x", "caller"], self.rng.choice([0, 0, 1]))]
        return f"{self.rng.choice(self.macros)}({', '.join(args)})"

    def target(self):
        return self.rng.choice(["x", "y", "a", "n", "x, y", "(a, b)", "ns.a", "ns.b", "x", "y", "u", "d"])

    def statement(self, depth):
        r = self.rng
        output = lambda: "{{ " + self.expr(2) + " }}"
        if depth <= 0:
            return r.choice([output, output, lambda: self.open(f"set {self.target()} = {self.expr(2)}")])()
        return r.choice([
            output, output, output, lambda: "{#" + self.text() + "#}",
            lambda: self.open(f"set {self.target()} = {self.expr(2)}"), lambda: self.open(f"set {self.target()} = {self.expr(2)}"),
            lambda: self.open("set ns = namespace(a=1, b=" + self.expr(1) + ")"),
            lambda: self.open(f"set {r.choice(['x', 'y', 'u', 'x|upper', 'x | trim | length'])}") + self.body(depth - 1) + self.open("endset"),
            lambda: self.if_statement(depth), lambda: self.if_statement(depth),
            lambda: self.for_statement(depth), lambda: self.for_statement(depth), lambda: self.for_statement(depth),
            lambda: self.macro(depth), lambda: self.call_block(depth),
            lambda: self.open("filter " + r.choice(["upper", "trim", "indent(2)", "replace('a', 'b')", "length", "upper|lower|title"]))
            + self.body(depth - 1) + self.open("endfilter"),
            lambda: self.open("with " + r.choice(["", "x=1", f"x={self.expr(1)}, y=x", "a=b, b=a"])) + self.body(depth - 1) + self.open("endwith"),
            lambda: self.open("generation") + self.body(depth - 1) + self.open("endgeneration"),
            lambda: self.open("block " + r.choice("pqrst") + r.choice(["", "", " scoped"])) + self.body(depth - 1) + self.open("endblock"),
            lambda: self.open("autoescape " + r.choice(["true", "false"])) + self.body(depth - 1) + self.open("endautoescape"),
            lambda: self.open("raw") + "{{ x" + self.text() + self.open("endraw"),
            lambda: self.open(f"print {self.expr(1)}, {self.expr(1)}"),
            lambda: self.open(r.choice(["break", "continue"])) if self.in_loop else output(),
        ])()

    def if_statement(self, depth):
        out = self.open("if " + self.expr(2)) + self.body(depth - 1)
        for _ in range(self.rng.choice([0, 0, 0, 1, 2])):
            out += self.open("elif " + self.expr(1)) + self.body(depth - 1)
        if self.chance(0.4):
            out += self.open("else") + self.body(depth - 1)
        return out + self.open("endif")

    def for_statement(self, depth):
        r = self.rng
        iterable = r.choice(["l", "l", "range(3)", "s", "d", "d.items()", "d|items", "[1, 2, 3]", "l|sort", "l|reverse", "d|dictsort",
                             "[[1, 2], [3, 4]]", "'abc'", "a", "u", "l|select", "l|map('string')", self.expr(1)])
        target = r.choice(["x", "x", "x", "y", "a", "x, y", "(x, y)", "k, v"])
        recursive = self.chance(0.1)
        out = f"for {target} in {iterable}"
        if self.chance(0.25):
            out += " if " + r.choice(["x", "x is defined", "loop is undefined", "x != 2", "not x", self.expr(1)])
        out = self.open(out + (" recursive" if recursive else ""))
        outer, self.in_loop = self.in_loop, True
        body = self.body(depth - 1)
        if recursive and self.chance(0.7):
            body += "{{ loop(" + r.choice(["x.k", "x.a", "[]", "x"]) + ") if x is mapping or x is sequence and loop.depth < 4 }}"
        self.in_loop = outer
        out += body
        if self.chance(0.25):
            out += self.open("else") + self.body(depth - 1)
        return out + self.open("endfor")

    def macro(self, depth):
        name = self.rng.choice(["f", "g", "h"])
        params = self.rng.choice(["", "a", "a, b", "a, b=2", "a=1, b=a", "x, y='z'", "a, caller=none"])
        outer, self.in_loop = self.in_loop, False
        body = self.body(depth - 1) + self.rng.choice(["", "", "{{ a }}", "{{ varargs }}", "{{ kwargs }}", "{{ caller() if caller }}", "{{ x }}"])
        self.in_loop = outer
        self.macros.append(name)
        return self.open(f"macro {name}({params})") + body + self.open("endmacro")

    def call_block(self, depth):
        if not self.macros:
            return self.macro(depth)
        outer, self.in_loop = self.in_loop, False
        body = self.body(depth - 1)
        self.in_loop = outer
        return self.open("call" + self.rng.choice(["", "", "(x)", "(x, y=1)"]) + " " + self.macro_call(1)) + body + self.open("endcall")
