"""test.test_multiprocessing_fork, for interpreters whose package leaves it out, but not what it is made of.

A file, as processes that tests spawn import it by name.
"""

from test._test_multiprocessing import install_tests_in_module_dict

install_tests_in_module_dict(globals(), "fork")
