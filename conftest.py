"""How the property tests of all packages choose their examples."""

from hypothesis import settings

# An example that takes long says something about the machine, which others use too. And the same examples every time: whether
# a change may land must not hang on luck. To look for new ones: `pytest --hypothesis-profile=search`.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile("same")
