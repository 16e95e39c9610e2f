"""Which of the caller's variables a step gets: those of a list, and the secrets that it names.

The server looks at its own environment once, at send_message (`capture_environment`); the worker,
which may run elsewhere and for longer, makes each step's environment of that (`step_environment`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .workflow_step import Step

ALLOWED_VARIABLES = (
    # Who and where: what every program expects.
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LANGUAGE", "LC_*", "TZ"),
    *("TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"),
    # How to talk, and how much.
    *("CI", "NO_COLOR", "FORCE_COLOR", "SOURCE_DATE_EPOCH"),
    # The network: proxies and certificates.
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("SSL_CERT_*", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
    # Compilers and make.
    *("CC", "CXX", "CPP", "LD", "AR", "CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "MAKEFLAGS"),
    *("PKG_CONFIG_PATH", "LD_LIBRARY_PATH"),
    # Languages and their tools: where they live and keep their caches.
    *("JAVA_HOME", "JAVA_OPTS", "MAVEN_HOME", "MAVEN_OPTS", "GRADLE_HOME", "GRADLE_USER_HOME"),
    *("ANDROID_HOME", "ANDROID_SDK_ROOT", "DOTNET_ROOT", "NUGET_PACKAGES"),
    *("GOPATH", "GOROOT", "GOCACHE", "GOMODCACHE", "GOFLAGS", "GOBIN", "GOPRIVATE"),
    *("CARGO_HOME", "CARGO_TARGET_DIR", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "RUSTFLAGS"),
    *("NODE_ENV", "NODE_OPTIONS", "NODE_PATH", "NVM_DIR", "NVM_BIN", "VOLTA_HOME", "FNM_DIR"),
    *("PNPM_HOME", "BUN_INSTALL", "DENO_DIR", "COREPACK_HOME", "YARN_CACHE_FOLDER"),
    *("npm_config_cache", "npm_config_prefix", "npm_config_registry"),
    *("VIRTUAL_ENV", "CONDA_PREFIX", "PYENV_ROOT", "PIP_CACHE_DIR", "UV_CACHE_DIR", "POETRY_HOME"),
    *("GEM_HOME", "GEM_PATH", "BUNDLE_PATH", "RBENV_ROOT", "ASDF_DIR", "ASDF_DATA_DIR"),
    *("COMPOSER_HOME", "PUB_CACHE", "FLUTTER_ROOT", "DOCKER_HOST", "DOCKER_BUILDKIT"),
)
"""Variables that every step gets from its caller; a name that ends in `*` is a prefix.

No wildcard covers names that may carry a credential (`NODE_AUTH_TOKEN`, `npm_config__authToken`,
`PIP_INDEX_URL`, `SSH_AUTH_SOCK`, `AWS_*`): a step asks for these by name, in `secrets`.
"""


def missing_secrets(
    steps: Iterable[Step], environ: Mapping[str, str]
) -> tuple[tuple[str, str], ...]:
    """Return (step name, variable) for each declared secret that is unset or empty."""
    return tuple(
        (step.name, name) for step in steps for name in step.secrets if not environ.get(name)
    )


def capture_environment(steps: Iterable[Step], environ: Mapping[str, str]) -> dict[str, str]:
    """Return what `steps` may need of the caller's variables: the allowed and the secret ones.

    A value that is not UTF-8 text is left out: the store could not keep it.
    """
    secrets = {name for step in steps for name in step.secrets}
    return {
        name: value
        for name, value in environ.items()
        if (name in secrets or _is_allowed(name)) and _is_utf8(name + value)
    }


def step_environment(
    step: Step, captured: Mapping[str, str], bilt: Mapping[str, str]
) -> dict[str, str]:
    """Return the whole environment of `step`; later ones win: caller's, secrets, `env`, `bilt`.

    `captured` is from `capture_environment`; of its secrets a step sees only those it declares.
    `bilt` are the BILT_ variables. A message of 5000 characters is at most 20 KB, far below
    the 131,072 bytes that one variable may have.
    """
    own = {n: v for n, v in captured.items() if n in step.secrets or _is_allowed(n)}
    return {**own, **step.env, **bilt}


def _is_allowed(name: str) -> bool:
    return any(
        name.startswith(allowed[:-1]) if allowed.endswith("*") else name == allowed
        for allowed in ALLOWED_VARIABLES
    )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
