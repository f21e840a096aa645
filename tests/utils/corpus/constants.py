"""Constants of every type and spelling."""

numbers = (0, 1, -1, 0x1F, 0o17, 0b101, 1_000_000, 10**40, 1e-300, 1e308, 0.1, 2.5e3, 3j, 1.5e2j)
signed = -0.0, +1, ~5, not 0
texts = "plain", "with 'single'", 'with "double"', "tab\tnewline\n", "\x00\x7f\xa0", "\ud800", u"old"
letters = "àéîõü ßΩж 中文 🎉", "e\u0301", "\N{SNOWMAN}"
raw = r"\d+\s", b"bytes\xff", rb"\raw", b"it's"
joined = "one " "two " 'three'
singletons = None, True, False, ..., NotImplemented
containers = {1: "a", **{2: "b"}}, {1, 2}, [*range(3)], (1,), ()
long = (
    "a text that is written on several lines, "
    "as long messages are"
)
