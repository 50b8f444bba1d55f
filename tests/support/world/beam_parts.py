"""State cell and timer, as a runner passes them to a stateful step."""


class Cell:
    """The state of a `ReadModifyWriteStateSpec`."""

    def __init__(self):
        self.value = None

    def read(self):
        return self.value

    def write(self, value):
        self.value = value


class Timer:
    """The timer of a `TimerParam`."""

    is_set = False

    def set(self, at):
        self.is_set = True
