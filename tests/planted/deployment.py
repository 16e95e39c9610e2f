"""Bugs to plant where the server stands behind something else."""

from __future__ import annotations

from .plant import Plant, plant, within

GUESSES = (
    "test_deployment.py::test_who_guesses_keys_is_known_by_his_address_whatever_he_says_of_himself"
)

PLANTS: tuple[Plant, ...] = (
    plant(
        "deployment: everybody behind a proxy has the proxy's address",
        within("server/http/listening.py", GUESSES),
        "proxy_headers=bool(settings.public_urls),",
        "proxy_headers=False,",
    ),
    plant(
        "deployment: keys may travel in the clear",
        within(
            "server/http/startup_checks.py",
            "test_deployment.py::test_the_command_of_the_image_wants_to_be_told_how_it_is_reached",
        ),
        "    if not is_local and not settings.tls_cert and not settings.public_urls:\n",
        "    if False:\n",
    ),
    plant(
        "deployment: who asks from beside it must use its public name, so a container is never healthy",
        within(
            "server/http/whereabouts.py",
            "test_deployment.py::test_the_container_of_compose_is_healthy",
        ),
        "        names: set[str] = set(_LOOPBACK)\n",
        "        names: set[str] = set()\n",
    ),
    plant(
        "deployment: who polls after a power cut is told for ever that it runs",
        within(
            "server/http/invocation_cache.py",
            "test_invocation_trouble.py::test_who_only_looks_is_not_told_for_ever_that_it_runs",
        ),
        "        if needs_worker(kept.found.workflow):\n",
        "        if False:\n",
    ),
)
