"""For all tests: hypothesis counts no time, since a busy machine is no defect."""

from hypothesis import settings

settings.register_profile("provision", deadline=None)
settings.load_profile("provision")
