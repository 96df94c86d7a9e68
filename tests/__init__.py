"""One folder per package of surface_sos_ns; what several files need is in `helpers/` or a `conftest.py`."""

import pytest

pytest.register_assert_rewrite("tests.helpers")  # the values of an assert that fails are shown there as well
