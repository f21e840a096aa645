"""Strings with holes, in every form that Python 3.11 can read."""

name, width, number = "it's", 12, 3.14159
quoted = f"{name!r} and \"{name}\" and '{name}'"
nested = f"{', '.join(f'{n:02}' for n in range(3))}"
formatted = f"{number:{width}.{int(number)}f} {number:>+10,.2e} {name!s:^{width}} {name!a}"
debugged = f"{name=} {number = :.2f}"
braces = f"{{}} {{{name}}} {name}{{"
glued = "a" f"{name}" "b" 'c"d' f'"{name}"'
lines = f"""first {name}
second "quoted" {number!r:>10}
"""
looked_up = f"{dict(a='x', b='y')['a']} {[n for n in (1, 2)][0]:d}"
raw = rf"\d{name}\n" + f"\N{GREEK SMALL LETTER ALPHA} \u00e9 {name}\t"
empty = f"" + f"{name:}"
