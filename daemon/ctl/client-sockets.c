/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/client-sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/attr.h"
#include "base/export-settings.h"
#include "base/listen.h"
#include "base/log.h"
#include "base/text.h"
#include "ctl/absolute-path.h"

#define NAME_SHOWN 256u                 /* bytes of an export's name in a line for people */
#define URI_SIZE 512u                   /* holds a unix socket's path, three bytes for one */

/* Room for one more, so that nothing fails once the socket exists. */
static int grow(struct client_sockets *all, struct failure *why)
{
	int *fds = reallocarray(all->fds, all->n + 1, sizeof *fds);
	struct client_socket *about;

	if (!fds)
		return fail(why, ENOMEM, "cannot keep one more socket");
	all->fds = fds;
	about = reallocarray(all->about, all->n + 1, sizeof *about);
	if (!about)
		return fail(why, ENOMEM, "cannot keep one more socket");
	all->about = about;
	about[all->n] = (struct client_socket) { 0 };
	return 0;
}

int client_sockets_add_tcp(struct client_sockets *all, const char *address, struct failure *why)
{
	int r = grow(all, why);

	if (r < 0)
		return r;
	r = listen_tcp(address, &all->fds[all->n], why);
	if (r < 0)
		return r;
	all->n++;
	return 0;
}

int client_sockets_add_unix(struct client_sockets *all, const char *path, struct failure *why)
{
	AUTO_FREE char *whole = absolute_path(path);
	struct client_socket *about;
	struct stat st;
	int r = grow(all, why);

	if (r < 0)
		return r;
	if (!whole)
		return fail(why, errno, "cannot make %s an absolute path", path);
	r = listen_unix(whole, SOCK_STREAM, &all->fds[all->n], why);
	if (r < 0)
		return r;
	about = &all->about[all->n++];
	if (lstat(whole, &st) == 0) {
		about->dev = st.st_dev;
		about->ino = st.st_ino;
	}
	about->path = take_ptr(whole);
	return 0;
}

/* The file goes before the socket: as long as we listen, nobody takes it for a stale one
 * and puts another in its place. */
static void close_one(int *fd, struct client_socket *about)
{
	struct stat st;

	if (about->path && lstat(about->path, &st) == 0 && st.st_dev == about->dev &&
	    st.st_ino == about->ino && unlink(about->path) < 0)
		log_warning("cannot remove %s, ignoring: %s", about->path, strerror(errno));
	free(about->path);
	close_fd(fd);
}

void client_sockets_close(struct client_sockets *all)
{
	for (size_t i = 0; i < all->n; i++)
		close_one(&all->fds[i], &all->about[i]);
	free(all->fds);
	free(all->about);
	*all = (struct client_sockets) { 0 };
}

/* The name belongs before the query of "nbd+unix:///?socket=", and behind "nbd://host:port"; an "s"
 * behind "nbd" says that it is by TLS. */
static void print_line(const char *name_for_people, const char *name_in_uri, const char *uri,
                       bool is_tls, FILE *to)
{
	const char *rest = uri + strlen("nbd");
	const char *query = strchr(uri, '?');
	int len = (int) (query ? query - rest : (ptrdiff_t) strlen(rest));

	(void) fprintf(to, "serving %s at nbd%s%.*s%s%s%s\n", name_for_people, is_tls ? "s" : "",
	               len, rest, query ? "" : "/", name_in_uri, query ? query : "");
}

void client_sockets_print(const struct client_sockets *all, const char *export_name,
                          enum tls_policy tls, FILE *to)
{
	char shown[NAME_SHOWN + 4];
	char escaped[3 * EXPORT_NAME_MAX + 1];
	char uri[URI_SIZE];

	printable(span_of(export_name), NAME_SHOWN, shown, sizeof shown);
	if (uri_escape(export_name, escaped, sizeof escaped) < 0)
		return;                 /* not with a name that the settings allow */
	for (size_t i = 0; i < all->n; i++) {
		if (listen_uri(all->fds[i], uri, sizeof uri) < 0)
			continue;       /* it listens all the same */
		if (tls != TLS_POLICY_REQUIRE)
			print_line(shown, escaped, uri, false, to);
		if (tls != TLS_POLICY_OFF)
			print_line(shown, escaped, uri, true, to);
	}
	(void) fflush(to);
}

static bool is_loopback(const struct sockaddr *address)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *) address;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *) address;

	if (address->sa_family == AF_INET)
		return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
	if (address->sa_family != AF_INET6)
		return false;
	if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr))
		return v6->sin6_addr.s6_addr[12] == 127;
	return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

bool client_address_is_loopback(const char *address_and_port)
{
	AUTO_FREE char *host = strdup(address_and_port);
	struct addrinfo wanted = { .ai_socktype = SOCK_STREAM };
	struct addrinfo *found;
	char *name = host;
	char *colon;
	size_t len;
	bool all = true;

	if (!host)
		return false;
	colon = strrchr(host, ':');
	if (colon)
		*colon = '\0';
	len = strlen(name);
	if (len >= 2 && name[0] == '[' && name[len - 1] == ']') {
		name[len - 1] = '\0';
		name++;
	}
	if (*name == '\0' || strcmp(name, "*") == 0)
		return false;
	if (getaddrinfo(name, NULL, &wanted, &found) != 0)
		return true;
	for (const struct addrinfo *at = found; at; at = at->ai_next)
		all = all && is_loopback(at->ai_addr);
	freeaddrinfo(found);
	return all;
}
