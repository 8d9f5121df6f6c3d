"""The one kind of error a user is meant to see."""


class UserError(SystemExit):
    """Something the user can fix: a wrong option, a missing file, a dictionary of another language.

    Its text is the message; uncaught, it is printed behind the name of the package. It derives from :class:`SystemExit`
    on purpose. Uncaught, Python prints :attr:`code` alone and exits with status 1, and fairseq's own ``except
    Exception`` blocks (which wrap checkpoint loading) cannot turn it into a traceback.

    Args:
        message: one line that names the file or option and says how to fix it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = f"dual_fairseq: error: {message}"
