/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of events; tests/test_docs.py reads it. */
#include "base/events.h"

#include <stddef.h>
#include <syslog.h>

#include "base/attr.h"

static const struct event_kind kinds[] = {
	/* a client begins its transmission phase */
	[EVENT_CLIENT_ADMITTED] = {
		"client-admitted", "62ff5f6904a24dbfa0588247b5e6b277", LOG_INFO,
	},
	/* a client's connection is over; the entry has its counters */
	[EVENT_CLIENT_ENDED] = {
		"client-ended", "63387c15b927471ba4180eceed0a723a", LOG_INFO,
	},
	/* a client did not get what it asked for */
	[EVENT_CLIENT_REFUSED] = {
		"client-refused", "871fb60915cc4955b9841f1d337a3005", LOG_NOTICE,
	},
	/* more clients were refused than the log lists */
	[EVENT_REFUSALS_COUNTED] = {
		"refusals-counted", "38095e9ea9044c7d905567a8e9e8cccb", LOG_NOTICE,
	},
	/* the negotiator gave a client to its export */
	[EVENT_CLIENT_HANDED_OVER] = {
		"client-handed-over", "d91b2252fb0140a69c3c7a5eeb606728", LOG_INFO,
	},
	/* a client that took too long was closed */
	[EVENT_CLIENT_STALLED] = {
		"client-stalled", "b11a8f4aaac8490ab059cb1e033c32cf", LOG_NOTICE,
	},
	/* an administrator closed a client's connection */
	[EVENT_CLIENT_KICKED] = {
		"client-kicked", "d1903898892f42e6b0052679bf8c8fd1", LOG_NOTICE,
	},
	/* a client broke the protocol and was closed */
	[EVENT_PROTOCOL_VIOLATION] = {
		"protocol-violation", "2b704a4631634990a8ca1328c1ed3446", LOG_NOTICE,
	},
	/* clients were turned away, since too many are connected */
	[EVENT_HANDSHAKE_LIMIT] = {
		"handshake-limit", "dc9003f96b134f53bac63ef4fe29defd", LOG_WARNING,
	},
	/* clients cannot be accepted for now */
	[EVENT_ACCEPT_FAILED] = {
		"accept-failed", "bc330b8025834fd8aaf3931b6f01062c", LOG_WARNING,
	},
	/* an export serves its device */
	[EVENT_EXPORT_STARTED] = {
		"export-started", "70b28bfa403140289fa090633e2e05c6", LOG_INFO,
	},
	/* an export finishes what is in flight */
	[EVENT_EXPORT_STOPPING] = {
		"export-stopping", "85b3bbe3609b4143bb9376db42f9f068", LOG_INFO,
	},
	/* an export has ended in good order */
	[EVENT_EXPORT_STOPPED] = {
		"export-stopped", "65dd5d91f58f4b7ea8654912abb12689", LOG_INFO,
	},
	/* an export without clients stops until one asks */
	[EVENT_EXPORT_IDLE] = {
		"export-idle", "90b7c435d51946968263cb7cd0fd9ceb", LOG_INFO,
	},
	/* an export could not start or go on */
	[EVENT_EXPORT_FAILED] = {
		"export-failed", "89e4f755571a4ec28f732025e10b3731", LOG_ERR,
	},
	/* the negotiator gets no answer from an export */
	[EVENT_EXPORT_UNREACHABLE] = {
		"export-unreachable", "06bb0af439e54224a2acc5aff33f4994", LOG_WARNING,
	},
	/* an administrator drains an export */
	[EVENT_EXPORT_DRAINING] = {
		"export-draining", "aa980e045f954d189a873c5323da567e", LOG_NOTICE,
	},
	/* it is drained: nothing is in flight, and nobody is admitted */
	[EVENT_EXPORT_DRAINED] = {
		"export-drained", "d650b3d0ba9140b9869d37148405a8bd", LOG_NOTICE,
	},
	/* a drained export admits clients again */
	[EVENT_EXPORT_RESUMED] = {
		"export-resumed", "9bd03de6e0554c9b83a1ca46a867c279", LOG_NOTICE,
	},
	/* the device is mounted, or another program holds it */
	[EVENT_DEVICE_IN_USE] = {
		"device-in-use", "8127d72d6ea848b4aaf403c62bd25191", LOG_ERR,
	},
	/* the device has vanished */
	[EVENT_DEVICE_GONE] = {
		"device-gone", "29d6a5d527ab413ab604e63c8c366de9", LOG_ERR,
	},
	/* the device has not answered for a long time */
	[EVENT_DEVICE_STUCK] = {
		"device-stuck", "5cabc3043f29438f97754924044f2fa4", LOG_WARNING,
	},
	/* a device that was stuck answers again */
	[EVENT_DEVICE_UNSTUCK] = {
		"device-unstuck", "c30b713449d2457bbdc19cc66a8fa47e", LOG_NOTICE,
	},
	/* the device is read-only, and so is its export */
	[EVENT_DEVICE_READ_ONLY] = {
		"device-read-only", "4014b11fdb54468482135e7c356d58d0", LOG_NOTICE,
	},
	/* the device was read-only, and is not any more */
	[EVENT_DEVICE_WRITABLE] = {
		"device-writable", "71e2018298574860ba9113e68e12e937", LOG_NOTICE,
	},
	/* the device has grown or, told as critical, shrunk */
	[EVENT_DEVICE_RESIZED] = {
		"device-resized", "d363708890ea4b8f8c9684a416f96876", LOG_NOTICE,
	},
	/* the file system has no direct I/O */
	[EVENT_DIRECT_UNAVAILABLE] = {
		"direct-unavailable", "c03a191c8e3746ed96dde03711d7d2ec", LOG_NOTICE,
	},
	/* a pool of threads stands in for io_uring */
	[EVENT_IO_URING_UNAVAILABLE] = {
		"io-uring-unavailable", "0189b8c7470d4dde94a91539b57b51d9", LOG_NOTICE,
	},
	/* a flush failed: acknowledged data may be lost */
	[EVENT_FLUSH_FAILED] = {
		"flush-failed", "19db34ce377a481498aca1144cbc5ec2", LOG_CRIT,
	},
	/* an earlier flush failed, and nobody has cleared it */
	[EVENT_FLUSH_STILL_FAILED] = {
		"flush-still-failed", "8a57a5d504334ef2974a20ce8159ef38", LOG_WARNING,
	},
	/* an administrator cleared a failed flush */
	[EVENT_FLUSH_CLEARED] = {
		"flush-cleared", "209b9519146341b2b073079bbef64546", LOG_NOTICE,
	},
	/* files of settings were read again */
	[EVENT_SETTINGS_RELOADED] = {
		"settings-reloaded", "582a92d35a1249fea1959f5493cb87bb", LOG_NOTICE,
	},
	/* a bad file of settings: the old settings stay */
	[EVENT_SETTINGS_KEPT] = {
		"settings-kept", "fae8744e52bb438296ba55c54e99afaf", LOG_ERR,
	},
	/* a bad file of settings is skipped */
	[EVENT_SETTINGS_SKIPPED] = {
		"settings-skipped", "08792931b4994ad4ba5427269d4e04cf", LOG_ERR,
	},
	/* changed settings wait for a restart */
	[EVENT_SETTINGS_NEED_RESTART] = {
		"settings-need-restart", "655d3b77a44747188d88f83324d48a95", LOG_NOTICE,
	},
	/* the negotiator takes clients */
	[EVENT_NEGOTIATOR_STARTED] = {
		"negotiator-started", "93fe9b4fe70f48c38e9ab5ed8e6bad4d", LOG_INFO,
	},
	/* the negotiator has ended in good order */
	[EVENT_NEGOTIATOR_STOPPED] = {
		"negotiator-stopped", "a3abc0d6c1114c759433031024eda10f", LOG_INFO,
	},
	/* the negotiator could not start or go on */
	[EVENT_NEGOTIATOR_FAILED] = {
		"negotiator-failed", "1ae385337dbc4385974fe7cd3fb82be9", LOG_ERR,
	},
	/* a record came that the channel does not allow */
	[EVENT_CHANNEL_VIOLATION] = {
		"channel-violation", "9e129b81ab104bbbb18c8a5ec1fb8ff9", LOG_WARNING,
	},
	/* another user tried to connect to a channel */
	[EVENT_CHANNEL_REFUSED] = {
		"channel-refused", "885e79916ec144be98fe290901ba652a", LOG_WARNING,
	},
	/* a caller may not do what it asked for */
	[EVENT_CONTROL_DENIED] = {
		"control-denied", "857ca93e1d8e4f61a9643330cce83727", LOG_NOTICE,
	},
	/* the journal did not take entries, and clients did not wait for it */
	[EVENT_MESSAGES_LOST] = {
		"messages-lost", "5200fdbd13c54228bdf6b0111218eb0c", LOG_WARNING,
	},
	/* the file that keeps an export's bitmaps was made */
	[EVENT_BITMAP_STORE_MADE] = {
		"bitmap-store-made", "9bfd2977aa514c97a6425d8d2966363c", LOG_NOTICE,
	},
	/* an administrator changed the bitmaps of an export */
	[EVENT_BITMAP_CHANGED] = {
		"bitmap-changed", "07dff7b385fb483680ff395d4860989d", LOG_NOTICE,
	},
	/* after an unclean end bitmaps are complete, and show a little more */
	[EVENT_BITMAP_RECOVERED] = {
		"bitmap-recovered", "3dcbb329c8964f57aeaf79f779cb2b63", LOG_NOTICE,
	},
	/* the device has grown; the new part is dirty */
	[EVENT_BITMAP_GROWN] = {
		"bitmap-grown", "c6dde036661e4a6b851d9f5b64436057", LOG_NOTICE,
	},
	/* the device was changed without a bitmap seeing it: all of it is dirty */
	[EVENT_BITMAP_GAP] = {
		"bitmap-gap", "b88a6b3efaf1429384c26e00264abffe", LOG_WARNING,
	},
	/* bitmaps lost track: all of the device is dirty */
	[EVENT_BITMAP_LOST] = {
		"bitmap-lost", "2ebb27ac55114e9884e0d7ddf8b4d6e3", LOG_ERR,
	},
	/* the store cannot be written, and changes fail */
	[EVENT_BITMAP_STORE_FAILING] = {
		"bitmap-store-failing", "f6ee4deee42643ed94b037ff87cdc29b", LOG_ERR,
	},
	/* nbd-tls has read its keys */
	[EVENT_TLS_STARTED] = {
		"tls-started", "6e5915cee4094eb9a86c52438269b95a", LOG_INFO,
	},
	/* nbd-tls ends, and its sessions with it */
	[EVENT_TLS_STOPPED] = {
		"tls-stopped", "1d01a0eab9cc4db4ab469ea1683471b1", LOG_NOTICE,
	},
	/* nbd-tls could not start or go on */
	[EVENT_TLS_FAILED] = {
		"tls-failed", "b62d927dc93e48b7b5d11ce40fd9fd29", LOG_ERR,
	},
	/* a client has TLS */
	[EVENT_TLS_ESTABLISHED] = {
		"tls-established", "a836bd06c4f746a5ba41b1c60bae596e", LOG_INFO,
	},
	/* a client's TLS handshake failed */
	[EVENT_TLS_REFUSED] = {
		"tls-refused", "eafb94e3b25743f2a738028bb147ed83", LOG_NOTICE,
	},
	/* a client's TLS session is over */
	[EVENT_TLS_ENDED] = {
		"tls-ended", "a9c3389c796c4508b6885759f88d34cf", LOG_INFO,
	},
	/* keys were read again */
	[EVENT_TLS_KEYS_READ] = {
		"tls-keys-read", "f84346fb268f41bc80d96f8dd4262c79", LOG_NOTICE,
	},
	/* newer keys could not be read */
	[EVENT_TLS_KEYS_KEPT] = {
		"tls-keys-kept", "1352dd26bb0a4aa9992d1fafe8bcce75", LOG_ERR,
	},
	/* a certificate or a list of revoked ones is good for less than 30 days, or no more */
	[EVENT_TLS_EXPIRES] = {
		"tls-expires", "680f465f8339419dab3b186fab575610", LOG_WARNING,
	},
	/* a remote export is a local device now, and nbd-attach keeps it */
	[EVENT_DEVICE_ATTACHED] = {
		"device-attached", "54fb00e0c13a4332841b6837d446cbca", LOG_INFO,
	},
	/* such a device was taken away */
	[EVENT_DEVICE_DETACHED] = {
		"device-detached", "b0cef9ad65b843cb8674836977f547ae", LOG_INFO,
	},
	/* an attached device has fewer connections than it should */
	[EVENT_LINK_LOST] = {
		"link-lost", "2aba0ac9d1634ef2a9838bb4aacef912", LOG_WARNING,
	},
	/* it has more of them again */
	[EVENT_LINK_RESTORED] = {
		"link-restored", "567231f635f54d5dacbfe86b8930bf6b", LOG_NOTICE,
	},
	/* a process of nbdctl serve ended unexpectedly */
	[EVENT_CHILD_DIED] = {
		"child-died", "d366d8a5518f4444ae469fc5f99288fb", LOG_ERR,
	},
	/* a process of nbdctl serve was not ready in time */
	[EVENT_CHILD_LATE] = {
		"child-late", "810219186b1247ecb2058ab03930d858", LOG_ERR,
	},
};
_Static_assert(ARRAY_LEN(kinds) == N_EVENTS, "every event has its row");

const struct event_kind *event_kind(enum event event)
{
	return event > EVENT_NONE && event < N_EVENTS ? &kinds[event] : NULL;
}
