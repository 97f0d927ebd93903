"""A model on Ray Serve: each replica is a whole service with a queue of its own, and Ray shares requests among them.

    VERYDEEP_MODEL=runs/a serve run examples.serving.ray_serve:deployment

VERYDEEP_MODEL is read by each replica: on several machines it is a path that all of them have. A replica needs
`verydeep[serve]` in its environment.
"""

import os

from ray import serve
from starlette.types import ASGIApp

from verydeep.serving.app import application
from verydeep.serving.options import Access, Limits
from verydeep.serving.served_model import served_model
from verydeep.serving.service import Service

LIMITS = Limits()


def app() -> ASGIApp:
    """Return the service as an ASGI application. Ray calls this in each replica: a loaded model does not travel."""
    model = served_model(os.environ["VERYDEEP_MODEL"])
    return application(Service(model, os.environ.get("VERYDEEP_NAME", "model"), LIMITS, Access()))


@serve.deployment(
    num_replicas=int(os.environ.get("VERYDEEP_REPLICAS", "2")),
    # A few more than fit into the service's queue: what is too much is refused with 503, and not kept waiting by Ray.
    max_ongoing_requests=LIMITS.queue + 8,
    graceful_shutdown_timeout_s=LIMITS.body_seconds + LIMITS.deadline,
)
@serve.ingress(app)
class Model:
    """One replica."""


deployment = Model.bind()
