"""The two ways in which an installation stops: it cannot go on, or somebody has to be asked."""


class Fatal(Exception):
    """The installation ends here; the text says what was attempted and why it failed."""


class Question(Exception):
    """Something is missing that an installer in text mode asks for. `where` is the line of its hub, `what` the reason."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where} ({what})")
        self.where = where
        self.what = what


class YesNo(Exception):
    """The installer asks whether it may go on in spite of this."""
