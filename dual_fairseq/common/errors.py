"""The one kind of error a user is meant to see."""


class UserError(SystemExit):
    """Something the user can fix: a wrong option, a missing file, a dictionary of another language.

    It derives from :class:`SystemExit` on purpose. Uncaught, Python prints the message alone and exits with status 1,
    and fairseq's own ``except Exception`` blocks (which wrap checkpoint loading) cannot turn it into a traceback.

    Args:
        message: one line that names the file or option and says how to fix it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(f"dual_fairseq: error: {message}")
