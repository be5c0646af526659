"""Names that users may give to classes, files and data sets, and that break what takes them for code."""

FOLDER_NAMES = (
    "<img src=q onerror=\"document.title='X'\">",
    "<script>document.title='X'<",
    "$a_$",
    "a$b$c",
    "\\frac{$x^{2",
    "🐱",
    "👨‍👩‍👧",
    "猫と犬",
    "개",
    "كلب",
    "שלום",
    "W" * 200,
    "[red]x",
    "{{x}}{% raw %}",
    "accuracy",
    "macro avg",
    "weighted avg",
    "micro avg",
    "new\nline",
    "tab\there",
    "\x1b[31mred",
    "\u202eltr",
    "%s %(x)s",
    "'quote' \"double\"",
    "`code` **bold** [link](javascript:alert(1)) | cell",
    "&lt;b&gt; &amp;",
    "--option",
    "=1+1",
    "a,b;c",
    "back\\slash",
    "…",
    "e\u0301",
    "\ue000",
    " space ",
)
"""Allowed as the name of a folder on Linux."""

NASTY_NAMES = (*FOLDER_NAMES, "../x", "[red]x[/red]", "[/]", "", "\udcff", "a/b")
"""With names that come from elsewhere."""
