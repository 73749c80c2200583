"""Every setting, read from the environment through typed readers that fail loudly.

Development has harmless defaults; production (`INSIGHTO_ENV=production`) refuses to start insecurely
(`insighto/production.py` holds the rules). Each secret may come from a file: `NAME_FILE` instead of
`NAME`. `.env.example` lists them all.
"""

import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import django_stubs_ext
import environ
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from insighto import logging as insighto_logging
from insighto import production
from insighto.env import Environment, local_secret

django_stubs_ext.monkeypatch()  # lets classes such as ModelAdmin[Account] name what they are of

BASE_DIR = Path(__file__).resolve().parent.parent

environ.Env.read_env(os.environ.get("ENV_FILE", BASE_DIR / ".env"), overwrite=False)
env = Environment(os.environ)

PRODUCTION = env.choice("INSIGHTO_ENV", ("development", "production"), default="development") == "production"
VAR_DIR = Path(env.text("VAR_DIR", str(BASE_DIR / "var"))).absolute()
if not PRODUCTION:
    VAR_DIR.mkdir(parents=True, exist_ok=True, mode=0o700)
DEBUG = env.flag("DEBUG", default=False)

# --- Where we are -------------------------------------------------------------------------------------------

PUBLIC_URL = env.web_address("PUBLIC_URL", "" if PRODUCTION else "http://127.0.0.1:8000")
ALLOWED_HOSTS = env.items("ALLOWED_HOSTS", [] if PRODUCTION else ["127.0.0.1", "localhost", "[::1]", "testserver"])
CSRF_TRUSTED_ORIGINS = env.items("CSRF_TRUSTED_ORIGINS", [PUBLIC_URL] if PUBLIC_URL else [])
# How many proxies in front of us append to X-Forwarded-For; 0 means the header is a stranger's word.
TRUSTED_PROXY_COUNT = env.whole("TRUSTED_PROXY_COUNT", default=0, minimum=0, maximum=5)

# --- Secrets ------------------------------------------------------------------------------------------------


def _secret(name: str) -> str:
    """From the environment; on a developer's machine else from a file made once under `var/`."""
    if PRODUCTION or env.has(name):
        return env.text(name, "")
    return local_secret(VAR_DIR / "secrets" / name.lower())


SECRET_KEY = _secret("SECRET_KEY")
API_KEY_PEPPER = _secret("API_KEY_PEPPER")
METRICS_TOKEN = env.text("METRICS_TOKEN", "")
# The key ring that seals provider keys (provider_keys/keyring.py reads it; a first local run makes the file).
CREDENTIAL_KEYS_FILE = os.environ.get("CREDENTIAL_KEYS_FILE", "").strip()
CREDENTIAL_KEYS = "" if CREDENTIAL_KEYS_FILE else env.text("CREDENTIAL_KEYS", "")
if not PRODUCTION and not CREDENTIAL_KEYS and not CREDENTIAL_KEYS_FILE:
    CREDENTIAL_KEYS_FILE = str(VAR_DIR / "secrets" / "credential_keys")
CREDENTIAL_PRIMARY_KEK = env.text("CREDENTIAL_PRIMARY_KEK", "")

# --- Application --------------------------------------------------------------------------------------------

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.humanize",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "csp",
    "django_htmx",
    "django_structlog",
    "template_partials",
    "accounts",
    "provider_keys",
    "billing",
    "gateway",
]

# Static files and health are answered before Django (insighto/asgi.py).
MIDDLEWARE = [
    "insighto.middleware.RequestLogMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "django_permissions_policy.PermissionsPolicyMiddleware",
    "insighto.middleware.NoStoreMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "accounts.middleware.AccountMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "insighto.urls"
ASGI_APPLICATION = "insighto.asgi.application"
LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "insighto.context_processors.site",
                "accounts.context_processors.account",
            ],
        },
    }
]

# --- Database -----------------------------------------------------------------------------------------------

DATABASES: dict[str, dict[str, Any]] = {
    "default": env.database("DATABASE_URL", "" if PRODUCTION else f"sqlite:///{VAR_DIR / 'insighto.sqlite3'}")
    if env.has("DATABASE_URL") or not PRODUCTION
    else {"ENGINE": "django.db.backends.dummy"}
}
DATABASE_POOL_SIZE = env.whole("DATABASE_POOL_SIZE", default=10 if PRODUCTION else 0, minimum=0, maximum=200)
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # IMMEDIATE: the write lock is taken when a transaction begins, so none fails half way with "database is locked".
    # recursive_triggers: without it INSERT OR REPLACE deletes rows past the append-only triggers.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; "
        "PRAGMA recursive_triggers=ON; PRAGMA secure_delete=ON",
    }
elif DATABASES["default"]["ENGINE"].endswith("postgresql"):
    DATABASES["default"]["OPTIONS"].setdefault("connect_timeout", "5")
    DATABASES["default"]["OPTIONS"].setdefault("application_name", "insighto")
    if DATABASE_POOL_SIZE:
        DATABASES["default"]["OPTIONS"]["pool"] = {"min_size": 1, "max_size": DATABASE_POOL_SIZE, "timeout": 10}

# --- Valkey or Redis: broker, cache, limits. Nothing in it is worth stealing, forging or missing. -------------

REDIS_URL = env.text("REDIS_URL", "")
if REDIS_URL and urlsplit(REDIS_URL).scheme not in {"redis", "rediss", "unix"}:
    raise ImproperlyConfigured("REDIS_URL must be redis://, rediss:// or unix:///path?db=0.")


def _broker_url(redis_url: str) -> str:
    """The same server in Celery's spelling; without one, a queue that lives and dies with the process."""
    parts = urlsplit(redis_url)
    if parts.scheme != "unix":
        return redis_url or "memory://"
    return f"redis+socket://{parts.path}?virtual_host={parse_qs(parts.query).get('db', ['0'])[0]}"


CACHES: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "insighto",
    }
    if REDIS_URL
    else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
}

# --- Celery (design §4): the doorbell and the muscle; the database holds the work ------------------------------

CELERY_BROKER_URL = env.text("CELERY_BROKER_URL", _broker_url(REDIS_URL))
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 600,  # above the hard limit of a task, or a running one is handed out twice
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "socket_connect_timeout": 2,
    "socket_timeout": 10,
    "max_retries": 1,
}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_RESULT_BACKEND = None
CELERY_TASK_IGNORE_RESULT = True
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_SERIALIZER = "json"
CELERY_EVENT_SERIALIZER = "json"
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = False
CELERY_TASK_TIME_LIMIT = 120
CELERY_TASK_SOFT_TIME_LIMIT = 100
CELERY_TASK_PUBLISH_RETRY = False
CELERY_TASK_QUEUES: dict[str, dict[str, Any]] = {"check": {}, "money": {}, "mail": {}}
CELERY_TASK_DEFAULT_QUEUE = "check"
CELERY_TASK_CREATE_MISSING_QUEUES = False
CELERY_TASK_ROUTES = {"billing.*": {"queue": "money"}, "accounts.send_*": {"queue": "mail"}}
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_REDIRECT_STDOUTS = False
CELERY_BEAT_SCHEDULE_FILENAME = str(VAR_DIR / "celerybeat-schedule")
CELERY_TIMEZONE = "UTC"

# --- People, sessions, sign-in -------------------------------------------------------------------------------

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/"

ACCOUNT_ADAPTER = "accounts.adapter.AccountAdapter"
ACCOUNT_FORMS = {"signup": "accounts.forms.SignupForm"}
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_EMAIL_VERIFICATION = "mandatory" if PRODUCTION else "optional"
ACCOUNT_EMAIL_UNKNOWN_ACCOUNTS = True
ACCOUNT_EMAIL_NOTIFICATIONS = True
ACCOUNT_EMAIL_SUBJECT_PREFIX = ""
ACCOUNT_PREVENT_ENUMERATION = True
ACCOUNT_CHANGE_EMAIL = True
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_LOGOUT_ON_PASSWORD_CHANGE = False
ACCOUNT_REAUTHENTICATION_TIMEOUT = 1800  # keys, tokens and routing ask again after this (accounts/freshness.py)
ACCOUNT_DEFAULT_HTTP_PROTOCOL = urlsplit(PUBLIC_URL).scheme or "https"
ALLAUTH_TRUSTED_PROXY_COUNT = TRUSTED_PROXY_COUNT
MFA_ADAPTER = "provider_keys.mfa.MFAAdapter"
MFA_FORMS = {"activate_totp": "provider_keys.mfa.ActivateTOTPForm"}
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_PASSKEY_LOGIN_ENABLED = True
MFA_TOTP_ISSUER = "Insighto"
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = not PRODUCTION  # browsers allow it on localhost only

SESSION_ENGINE = "django.contrib.sessions.backends.db"
SESSION_COOKIE_AGE = 14 * 24 * 3600
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_HTTPONLY = True
CSRF_FAILURE_VIEW = "insighto.views.csrf_failure"
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PRODUCTION
if PRODUCTION:
    # The prefix makes browsers insist: https, no Domain, path /.
    SESSION_COOKIE_NAME = "__Host-session"
    CSRF_COOKIE_NAME = "__Host-csrf"
    LANGUAGE_COOKIE_SECURE = True

# --- Headers -------------------------------------------------------------------------------------------------

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "object-src": [NONE],
        "media-src": [SELF, "blob:"],  # speech that was fetched, then played
    }
}
PERMISSIONS_POLICY: dict[str, list[str]] = {
    "accelerometer": [],
    "camera": [],
    "display-capture": [],
    "geolocation": [],
    "gyroscope": [],
    "magnetometer": [],
    "microphone": [],
    "midi": [],
    "payment": [],
    "usb": [],
}
X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
SECURE_SSL_REDIRECT = PRODUCTION
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if PRODUCTION else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = False
if TRUSTED_PROXY_COUNT:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# Other hosts below the domain, and the browsers' preload list, are for the domain's owner to decide.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024
DATA_UPLOAD_MAX_NUMBER_FIELDS = 500

# --- E-mail --------------------------------------------------------------------------------------------------

_mail = env.mail("EMAIL_URL")
if _mail:
    EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    globals().update(_mail)
else:
    EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
    EMAIL_FILE_PATH = VAR_DIR / "mail"
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = env.text("DEFAULT_FROM_EMAIL", "Insighto <no-reply@localhost>")
SERVER_EMAIL = DEFAULT_FROM_EMAIL
ADMINS: list[tuple[str, str]] = []  # error mails would carry what logs must not
EMAIL_SUBJECT_PREFIX = ""

# --- Providers (product.md §7). `{region}` is replaced by an allow-listed Azure region. --------------------------

# While the sandbox is on, providers' addresses are its own unless the environment names others. Without a running
# sandbox they lead nowhere, never to a real provider.
SANDBOX = env.flag("SANDBOX", default=not PRODUCTION)
SANDBOX_URL = env.web_address("SANDBOX_URL", "http://127.0.0.1:8010" if SANDBOX and not PRODUCTION else "")
if not SANDBOX and not PRODUCTION:
    SANDBOX_URL = ""
RUN_OWN_SANDBOX = SANDBOX and not env.has("SANDBOX_URL")  # for `manage.py dev`
_sandboxed = SANDBOX and bool(SANDBOX_URL)
_azure_sandbox = f"{SANDBOX_URL}/azure/{{region}}"
OPENAI_BASE_URL = env.web_address(
    "OPENAI_BASE_URL", f"{SANDBOX_URL}/openai/v1" if _sandboxed else "https://api.openai.com/v1"
)
ELEVENLABS_BASE_URL = env.web_address(
    "ELEVENLABS_BASE_URL", f"{SANDBOX_URL}/elevenlabs" if _sandboxed else "https://api.elevenlabs.io"
)
AZURE_SPEECH_TTS_URL = env.web_address(
    "AZURE_SPEECH_TTS_URL", _azure_sandbox if _sandboxed else "https://{region}.tts.speech.microsoft.com"
)
AZURE_SPEECH_STS_URL = env.web_address(
    "AZURE_SPEECH_STS_URL", _azure_sandbox if _sandboxed else "https://{region}.api.cognitive.microsoft.com"
)

# How long a provider may take to begin an answer, and to be silent in the middle of one; requests served at once.
UPSTREAM_FIRST_BYTE_S = env.whole("UPSTREAM_FIRST_BYTE_S", default=120, minimum=1, maximum=900)
UPSTREAM_IDLE_S = env.whole("UPSTREAM_IDLE_S", default=45, minimum=1, maximum=55)
GATEWAY_MAX_IN_FLIGHT = env.whole("GATEWAY_MAX_IN_FLIGHT", default=1000, minimum=1, maximum=20000)

# --- Static files --------------------------------------------------------------------------------------------

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = Path(env.text("STATIC_ROOT", str(BASE_DIR / "staticfiles")))
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if PRODUCTION
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = not PRODUCTION
WHITENOISE_AUTOREFRESH = not PRODUCTION
WHITENOISE_ALLOW_ALL_ORIGINS = False

# --- Logs ----------------------------------------------------------------------------------------------------

LOG_LEVEL = env.choice("LOG_LEVEL", ("DEBUG", "INFO", "WARNING", "ERROR"), default="INFO")
LOGGING_CONFIG = None
insighto_logging.configure(level=LOG_LEVEL)
DJANGO_STRUCTLOG_CELERY_ENABLED = True
DJANGO_STRUCTLOG_IP_LOGGING_ENABLED = False  # addresses of people are not needed to follow a request

if PRODUCTION:
    _problems = production.problems(
        globals(),
        provider_addresses=("OPENAI_BASE_URL", "ELEVENLABS_BASE_URL", "AZURE_SPEECH_TTS_URL", "AZURE_SPEECH_STS_URL"),
    )
    if _problems:
        raise ImproperlyConfigured("Refusing to start in production:\n  " + "\n  ".join(_problems))
