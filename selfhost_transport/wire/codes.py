"""Error codes and the status each goes with (protocol section 12); the one table of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from selfhost_transport.errors import ErrorInfo


class Code(IntEnum):
    """Error codes that the SDKs, their tests or AI Transport depend on."""

    BAD_REQUEST = 40000
    INVALID_BODY = 40001
    INVALID_PARAMETER = 40003
    INVALID_CREDENTIAL = 40005
    INVALID_CONNECTION_KEY_IN_PUBLISH = 40006
    MESSAGE_TOO_LARGE = 40009
    INVALID_CHANNEL_NAME = 40010
    INVALID_CLIENT_ID = 40012
    INVALID_DATA = 40013
    UNSUPPORTED_VERSION = 40017
    BATCH_FAILED = 40020
    UNTIL_ATTACH_UNAVAILABLE = 40024
    INVALID_PUBLISH = 40030
    INVALID_MESSAGE_ID = 40031
    INVALID_EXTRAS = 40032
    CANCELLED = 40033
    TOO_MANY_MESSAGES = 40034
    FORCED_NACK = 40099
    UNAUTHORIZED = 40100
    INVALID_CREDENTIALS = 40101
    INCOMPATIBLE_CREDENTIALS = 40102
    TIMESTAMP_NOT_CURRENT = 40104
    NONCE_REUSED = 40105
    KEY_NOT_RECOGNISED = 40130
    KEY_REVOKED = 40131
    KEY_EXPIRED = 40132
    WRONG_KEY_FOR_REVOCATION = 40133
    TOKEN_ERROR = 40140
    TOKEN_REVOKED = 40141
    TOKEN_EXPIRED = 40142
    TOKEN_UNRECOGNISED = 40143
    INVALID_JWT = 40144
    INVALID_TOKEN = 40145
    NOT_PERMITTED = 40160
    CLIENT_ID_REQUIRED = 40161
    REVOKE_NEEDS_BASIC_AUTH = 40162
    TOKENS_NOT_REVOCABLE = 40163
    PUBLISH_MODE_MISSING = 40165
    UNIDENTIFIED_OWNER = 40166
    FORBIDDEN = 40300
    NOT_FOUND = 40400
    METHOD_NOT_ALLOWED = 40500
    RATE_LIMITED = 42910
    CONNECTION_PUBLISH_RATE = 42911
    CHANNEL_PUBLISH_RATE = 42913
    CONNECTION_RATE_FATAL = 42920
    ACCOUNT_RATE_FATAL = 42921
    CONNECTION_FRAME_RATE = 42924
    INTERNAL = 50000
    CHANNEL_INTERNAL = 50001
    CONNECTION_INTERNAL = 50002
    STORE_UNAVAILABLE = 50003
    OVERLOADED = 50004
    UNAVAILABLE = 50005
    CONNECTION_FAILED = 80000
    NO_TRANSPORT = 80001
    CONNECTION_SUSPENDED = 80002
    DISCONNECTED = 80003
    CONNECTION_EXPIRED = 80008
    RESUME_INCOMPATIBLE = 80011
    CONNECTION_SUPERSEDED = 80016
    CONNECTION_CLOSED = 80017
    INVALID_CONNECTION_KEY = 80018
    CONTINUITY_LOST_SLOW = 80020
    RESUMED_ELSEWHERE = 80023
    CHANNEL_FAILED = 90000
    CHANNEL_WRONG_STATE = 90001
    CONTINUITY_EXPIRED = 90003
    BACKLOG_TOO_LARGE = 90004
    POSITION_UNKNOWN = 90005
    ATTACH_POINT_TOO_OLD = 90008
    TOO_MANY_CHANNELS = 90010
    PRESENCE_NO_CLIENT_ID = 91000
    PRESENCE_WRONG_STATE = 91001
    PRESENCE_NOT_ENTERED = 91002
    PRESENCE_TOO_MANY_MEMBERS = 91003
    OBJECTS_FAILED = 92000
    NOT_MUTABLE = 93002


@dataclass(frozen=True, slots=True)
class CodeInfo:
    """What goes with a code: the HTTP-like status, and the sentence used where there is no better one."""

    status: int
    hint: str


CODES: Mapping[int, CodeInfo] = {
    Code.BAD_REQUEST: CodeInfo(400, "the request is malformed"),
    Code.INVALID_BODY: CodeInfo(400, "the body cannot be parsed"),
    Code.INVALID_PARAMETER: CodeInfo(400, "a parameter has an invalid value"),
    Code.INVALID_CREDENTIAL: CodeInfo(400, "the credential is neither a key nor a token"),
    Code.INVALID_CONNECTION_KEY_IN_PUBLISH: CodeInfo(400, "unknown connectionKey in the message"),
    Code.MESSAGE_TOO_LARGE: CodeInfo(400, "the message exceeds the size limit"),
    Code.INVALID_CHANNEL_NAME: CodeInfo(400, "the channel name is not valid"),
    Code.INVALID_CLIENT_ID: CodeInfo(400, "the clientId is not permitted for these credentials"),
    Code.INVALID_DATA: CodeInfo(400, "data or encoding is not valid"),
    Code.UNSUPPORTED_VERSION: CodeInfo(400, "the protocol version is not supported; use 2 to 6"),
    Code.BATCH_FAILED: CodeInfo(400, "some requests of the batch failed"),
    Code.UNTIL_ATTACH_UNAVAILABLE: CodeInfo(400, "history up to the attach point is not available here"),
    Code.INVALID_PUBLISH: CodeInfo(400, "the publish request is not valid"),
    Code.INVALID_MESSAGE_ID: CodeInfo(400, "the messages' ids are not <base>:<index> of one base"),
    Code.INVALID_EXTRAS: CodeInfo(400, "extras must be a map that JSON can carry"),
    Code.CANCELLED: CodeInfo(400, "the operation was cancelled"),
    Code.TOO_MANY_MESSAGES: CodeInfo(400, "too many messages in one publish; at most 1000"),
    Code.FORCED_NACK: CodeInfo(400, "refused on request, by the _forceNack param"),
    Code.UNAUTHORIZED: CodeInfo(401, "the request is not authorised"),
    Code.INVALID_CREDENTIALS: CodeInfo(401, "credentials are missing or wrong"),
    Code.INCOMPATIBLE_CREDENTIALS: CodeInfo(401, "the clientId or application contradicts the credentials"),
    Code.TIMESTAMP_NOT_CURRENT: CodeInfo(
        401, "the timestamp differs from the server's clock by more than two minutes"
    ),
    Code.NONCE_REUSED: CodeInfo(401, "the nonce is missing, too short, or was used before"),
    Code.KEY_NOT_RECOGNISED: CodeInfo(401, "there is no such key"),
    Code.KEY_REVOKED: CodeInfo(401, "the key was revoked"),
    Code.KEY_EXPIRED: CodeInfo(401, "the key has expired"),
    Code.WRONG_KEY_FOR_REVOCATION: CodeInfo(401, "tokens are revoked with the key that issued them"),
    Code.TOKEN_ERROR: CodeInfo(401, "the token is not usable; obtain a new one"),
    Code.TOKEN_REVOKED: CodeInfo(401, "the token was revoked"),
    Code.TOKEN_EXPIRED: CodeInfo(401, "the token has expired; obtain a new one"),
    Code.TOKEN_UNRECOGNISED: CodeInfo(401, "the token was not issued by this service"),
    Code.INVALID_JWT: CodeInfo(
        401, "the JWT does not verify; it needs a kid, iat, exp and a valid signature"
    ),
    Code.INVALID_TOKEN: CodeInfo(401, "the token is malformed"),
    Code.NOT_PERMITTED: CodeInfo(401, "the credentials do not permit this operation"),
    Code.CLIENT_ID_REQUIRED: CodeInfo(401, "this channel needs an identified client; set a clientId"),
    Code.REVOKE_NEEDS_BASIC_AUTH: CodeInfo(401, "tokens are revoked with a key, not with a token"),
    Code.TOKENS_NOT_REVOCABLE: CodeInfo(401, "the key's tokens are not revocable"),
    Code.PUBLISH_MODE_MISSING: CodeInfo(401, "the channel was attached without the publish mode"),
    Code.UNIDENTIFIED_OWNER: CodeInfo(401, "changing own messages needs a clientId"),
    Code.FORBIDDEN: CodeInfo(403, "forbidden"),
    Code.NOT_FOUND: CodeInfo(404, "not found"),
    Code.METHOD_NOT_ALLOWED: CodeInfo(405, "the method is not allowed on this path"),
    Code.RATE_LIMITED: CodeInfo(429, "a rate limit was reached; nothing was stored"),
    Code.CONNECTION_PUBLISH_RATE: CodeInfo(429, "the connection publishes too fast; nothing was stored"),
    Code.CHANNEL_PUBLISH_RATE: CodeInfo(429, "the channel is published to too fast; nothing was stored"),
    Code.CONNECTION_RATE_FATAL: CodeInfo(429, "the connection exceeded its rate limit and is closed"),
    Code.ACCOUNT_RATE_FATAL: CodeInfo(429, "a rate limit was exceeded and the connection is closed"),
    Code.CONNECTION_FRAME_RATE: CodeInfo(429, "the connection sends frames too fast"),
    Code.INTERNAL: CodeInfo(500, "internal error"),
    Code.CHANNEL_INTERNAL: CodeInfo(500, "internal error of the channel"),
    Code.CONNECTION_INTERNAL: CodeInfo(500, "internal error of the connection"),
    Code.STORE_UNAVAILABLE: CodeInfo(503, "the store did not answer in time; retry"),
    Code.OVERLOADED: CodeInfo(503, "the service is overloaded; retry later"),
    Code.UNAVAILABLE: CodeInfo(503, "the service is unavailable; retry later"),
    Code.CONNECTION_FAILED: CodeInfo(400, "the connection failed"),
    Code.NO_TRANSPORT: CodeInfo(400, "the connection has no transport"),
    Code.CONNECTION_SUSPENDED: CodeInfo(400, "the connection is suspended"),
    Code.DISCONNECTED: CodeInfo(400, "the connection was dropped; reconnect and resume"),
    Code.CONNECTION_EXPIRED: CodeInfo(400, "the connection's state has expired"),
    Code.RESUME_INCOMPATIBLE: CodeInfo(400, "the connection belongs to another application or client"),
    Code.CONNECTION_SUPERSEDED: CodeInfo(410, "a newer connection took over"),
    Code.CONNECTION_CLOSED: CodeInfo(400, "the connection is closed"),
    Code.INVALID_CONNECTION_KEY: CodeInfo(400, "the connection key is not valid; a new connection was made"),
    Code.CONTINUITY_LOST_SLOW: CodeInfo(400, "messages were skipped because this client read too slowly"),
    Code.RESUMED_ELSEWHERE: CodeInfo(400, "the connection was made at another site"),
    Code.CHANNEL_FAILED: CodeInfo(400, "the channel operation failed"),
    Code.CHANNEL_WRONG_STATE: CodeInfo(400, "the channel is not in a state that permits this"),
    Code.CONTINUITY_EXPIRED: CodeInfo(
        404, "the position is older than the live log; messages may be missing"
    ),
    Code.BACKLOG_TOO_LARGE: CodeInfo(
        404, "too many messages were missed to be replayed; some may be missing"
    ),
    Code.POSITION_UNKNOWN: CodeInfo(404, "the position is unknown in this channel"),
    Code.ATTACH_POINT_TOO_OLD: CodeInfo(400, "the attach point is too old for history"),
    Code.TOO_MANY_CHANNELS: CodeInfo(400, "the connection has attached too many channels"),
    Code.PRESENCE_NO_CLIENT_ID: CodeInfo(400, "presence needs a clientId"),
    Code.PRESENCE_WRONG_STATE: CodeInfo(400, "presence needs an attached channel"),
    Code.PRESENCE_NOT_ENTERED: CodeInfo(400, "the client has not entered presence"),
    Code.PRESENCE_TOO_MANY_MEMBERS: CodeInfo(400, "the channel has too many presence members"),
    Code.OBJECTS_FAILED: CodeInfo(400, "the objects operation cannot be done"),
    Code.NOT_MUTABLE: CodeInfo(400, "messages of this channel cannot be changed; enable mutable messages"),
}


def status_of(code: int) -> int:
    """The status of a code; for one that is not in the table, that of its hundreds."""
    known = CODES.get(code)
    if known is not None:
        return known.status
    return code // 100 if 40000 <= code < 60000 else 400


def error_info(code: int, message: str | None = None) -> ErrorInfo:
    """An ErrorInfo with the code's status, and its hint where no message is given."""
    known = CODES.get(code)
    hint = "internal error" if known is None else known.hint
    return ErrorInfo(code=int(code), status_code=status_of(code), message=message or hint)
