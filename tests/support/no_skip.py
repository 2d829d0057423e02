"""Plugin (``pytest -p tests.support.no_skip``): a run in which a test was skipped has failed.

But for those marked ``peers``: a package that cannot be pinned with the others may be out of reach.
"""

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    reports = reporter.stats.get("skipped", []) if reporter else []
    skipped = [report for report in reports if "peers" not in report.keywords]
    if reporter and skipped and session.exitstatus == pytest.ExitCode.OK:
        reporter.section(f"{len(skipped)} skipped: here a skip is a failure", sep="=", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
