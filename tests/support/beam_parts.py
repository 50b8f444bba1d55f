"""What a runner hands a stateful step: a cell of state and a timer."""


class Cell:
    """As `ReadModifyWriteStateSpec` gives it."""

    def __init__(self):
        self.value = None

    def read(self):
        return self.value

    def write(self, value):
        self.value = value


class Timer:
    """As `TimerParam` gives it."""

    is_set = False

    def set(self, at):
        self.is_set = True
