"""Send one run's rows with several processes. One process, the desk, owns the ledger; the workers hold leases."""

import logging
import sys
from functools import partial

from bulkimg.credentials import Credentials
from bulkimg.engine.connect import Ports
from bulkimg.errors import UsageError
from bulkimg.settings import Settings

_LOGGERS = ("distributed", "distributed.client", "tornado", "tornado.application")  # Dask gives each a level of its own


def ports_of(settings: Settings, credentials: Credentials) -> Ports:
    """Return what a run uses of its machine: with `--cluster`, the workers of a cluster carry its rows."""
    if settings.cluster is None:
        return Ports()
    is_ours = "distributed" not in sys.modules
    try:
        from bulkimg.cluster.dask import DaskCarriers  # imported only now: it takes half a second
    except ImportError as error:
        raise UsageError(
            f"--cluster: the extra dask cannot be loaded: {error}; install bulkimg with it again"
        ) from None
    if is_ours:  # what matters of Dask's log is said in our words; a program that uses Dask itself keeps its own choice
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)
    return Ports(carriers=partial(DaskCarriers, settings.cluster, credentials, settings.desk))
