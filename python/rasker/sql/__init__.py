"""SQL over files and tables.

`query` answers one question, `Context` keeps tables by name::

    from rasker import sql

    sql.query("SELECT carrier, avg(delay) FROM 'flights/*.parquet' GROUP BY carrier").compute()
"""

from __future__ import annotations

from rasker.exceptions import SqlError, SqlNotSupportedError
from rasker.sql.context import Context, query
from rasker.sql.result import Result

__all__ = ["Context", "Result", "SqlError", "SqlNotSupportedError", "query"]
