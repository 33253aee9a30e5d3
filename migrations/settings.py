"""What `python -m tortoise -c migrations.settings.TORTOISE_ORM makemigrations` reads; it connects
nowhere.
"""

from core.phase import orm_config

TORTOISE_ORM = orm_config("postgresql://owner@localhost/purser", 1, "purser-makemigrations")
