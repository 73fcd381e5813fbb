/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "tls/key-file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/attr.h"

#define FILE_MAX (4u << 20)     /* bytes; a CRL can be long */

static const struct {
	const char *name;
	bool secret;
} files[] = {
	[SERVER_CERT] = { "server-cert.pem", false },
	[SERVER_KEY] = { "server-key.pem", true },
	[CA_CERT] = { "ca-cert.pem", false },
	[CA_CRL] = { "ca-crl.pem", false },
	[PSK_KEYS] = { "psk.keys", true },
	[CLIENT_CERT] = { "client-cert.pem", false },
	[CLIENT_KEY] = { "client-key.pem", true },
};
_Static_assert(ARRAY_LEN(files) == N_KEY_FILES, "every file has its name");

const char *key_file_name(enum key_file which)
{
	return files[which].name;
}

static int open_file(const struct credentials_folder *folder, enum key_file which)
{
	return openat(folder->fd, files[which].name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

int credentials_folder_open(const char *path, struct credentials_folder *ret, struct failure *why)
{
	const char *managed = getenv("CREDENTIALS_DIRECTORY");
	int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return fail(why, errno, "cannot use the folder of keys %s", path);
	*ret = (struct credentials_folder) {
		.path = path, .fd = fd, .private = managed && strcmp(managed, path) == 0,
	};
	return 0;
}

bool credentials_folder_has_files(const struct credentials_folder *folder)
{
	for (size_t i = 0; folder->fd >= 0 && i < ARRAY_LEN(files); i++) {
		AUTO_FD fd = open_file(folder, (enum key_file) i);

		if (fd >= 0 || errno != ENOENT)
			return true;            /* what else is wrong is said when it is read */
	}
	return false;
}

void key_text_clear(struct key_text *text)
{
	if (text->at)
		explicit_bzero(text->at, text->len);
	free(text->at);
	text->at = NULL;
	text->len = 0;
}

static int check_file(int fd, const struct credentials_folder *folder, bool secret,
                      struct key_text *text, struct failure *why)
{
	mode_t others = folder->private ? S_IRWXO : S_IRWXG | S_IRWXO;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return fail(why, errno, "%s", text->path);
	if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX)
		return fail_plain(why, EINVAL, "%s is not a file of at most 4 MiB", text->path);
	if (secret && st.st_mode & others)
		return fail_plain(why, EACCES, "%s holds secrets, but others than its owner may "
		                  "use it (chmod go= %s)", text->path, text->path);
	text->len = (size_t) st.st_size;
	text->mode = st.st_mode;
	return 0;
}

int key_file_read(const struct credentials_folder *folder, enum key_file which,
                  struct key_text *text, struct failure *why)
{
	AUTO_FD fd = open_file(folder, which);
	ssize_t n;
	int r;

	snprintf(text->path, sizeof text->path, "%s/%s", folder->path, files[which].name);
	if (fd < 0)
		return errno == ENOENT ? 0 : fail(why, errno, "cannot open %s", text->path);
	r = check_file(fd, folder, files[which].secret, text, why);
	if (r < 0)
		return r;
	text->at = calloc(1, text->len + 1);
	if (!text->at)
		return fail(why, ENOMEM, "cannot read %s", text->path);
	n = pread(fd, text->at, text->len, 0);
	if (n != (ssize_t) text->len)
		return fail(why, n < 0 ? errno : EIO, "cannot read %s", text->path);
	if (strspn((const char *) text->at, " \t\r\n") == text->len)
		text->len = 0;
	return 0;
}
