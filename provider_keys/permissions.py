"""Who may do what with provider keys. Members see that they exist; owners and admins manage them."""

from typing import Final

from accounts.models import Membership

SEE: Final = Membership.Role.MEMBER
MANAGE: Final = Membership.Role.ADMIN  # add, replace, remove, select, check, and the switch


def may_manage(membership: Membership) -> bool:
    return membership.has_role(MANAGE)
