"""The environment variables drkit knows, by name; `settings` holds their types.

Kept apart because `wal push` needs the names and can't afford pydantic.
"""

from __future__ import annotations

PREFIX = "DRKIT_"

# Variables that `env:` references of policies may name freely; drkit reads no setting
# from them.
REFERENCE_PREFIX = "DRKIT_SECRET_"

# Variable → the policy field whose value it replaces.
OVERRIDES = {
    "DRKIT_DATABASE_URL": ("cluster", "url"),
    "DRKIT_DATABASE_DIRECTORY": ("cluster", "data_directory"),
    "DRKIT_REPOSITORY_URL": ("repository", "url"),
    "DRKIT_S3_ENDPOINT_URL": ("repository", "s3", "endpoint_url"),
    "DRKIT_S3_REGION": ("repository", "s3", "region"),
    "DRKIT_BACKUP_SOURCE": ("backup", "source"),
    "DRKIT_BACKUP_JOBS": ("backup", "jobs"),
    "DRKIT_BACKUP_COMPRESSION_LEVEL": ("backup", "compression_level"),
    "DRKIT_BACKUP_WAL_TIMEOUT": ("backup", "wal_timeout"),
    "DRKIT_WAL_TIMEOUT": ("wal", "timeout"),
}

# Variable that holds a secret itself → the field that then refers to it.
SECRETS = {
    "DRKIT_DATABASE_PASSWORD": ("cluster", "password"),
    "DRKIT_S3_ACCESS_KEY_ID": ("repository", "s3", "access_key_id"),
    "DRKIT_S3_SECRET_ACCESS_KEY": ("repository", "s3", "secret_access_key"),
}

# Variables that concern the process, not one policy.
PROCESS = (
    "DRKIT_POLICY_DIR",
    "DRKIT_CACHE_DIR",
    "DRKIT_STATE_DIR",
    "DRKIT_LOG_FORMAT",
    "DRKIT_LOG_LEVEL",
)

PLAIN = frozenset((*OVERRIDES, *PROCESS))
KNOWN = PLAIN | frozenset(SECRETS)
