/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/export-settings.h"
#include "scratch.h"

static int read_text(struct scratch *s, const char *name, const char *text,
                     struct export_settings *ret, struct failure *why)
{
	return export_settings_read(scratch_write(s, name, text, strlen(text)), ret, why);
}

TEST(defaults_hold_where_nothing_is_said)
{
	struct scratch s = scratch_start();
	struct export_settings got = { 0 };
	struct failure why = { 0 };

	CHECK_EQ("", read_text(&s, "web1.conf", "[Export]\nDevice=/dev/sdx\n", &got, &why), 0);
	CHECK_STR("why", why.text, "");
	CHECK_STR("label", got.label, "web1");
	CHECK_STR("name", got.name, "web1");
	CHECK_STR("device", got.device, "/dev/sdx");
	CHECK_STR("description", got.description, "");
	CHECK(!got.read_only && got.direct && !got.shared && !got.is_default);
	CHECK_EQ("memory", got.memory, 0);
	CHECK_EQ("what that means", export_settings_memory(&got), 64u << 20);
	CHECK_EQ("threads", got.threads, 1);
	CHECK_EQ("engine", got.engine, EXPORT_ENGINE_AUTO);
	CHECK_EQ("connections", got.max_connections, 256);
	CHECK_STR("rules", got.allow, "");
	CHECK_EQ("TLS", got.tls, TLS_POLICY_UNSET);
	CHECK_STR("identities", got.identity, "");
	CHECK_EQ("connections of a source", got.max_per_source, 0);
	CHECK_EQ("idle", got.idle_timeout, 0);
	CHECK(!got.start_at_boot);
	export_settings_clear(&got);
	export_settings_clear(&got);            /* twice is once */
	scratch_end(&s);
}

TEST(every_key_is_read)
{
	static const char text[] = "[Export]\n"
				   "Name = the web's disk, \xc3\xa4\n"
				   "Device = /dev/disk/by-id/a b\n"
				   "Description = for people\n"
				   "ReadOnly = yes\n"
				   "Direct = no\n"
				   "Shared = yes\n"
				   "Default = yes\n"
				   "Memory = 48M\n"
				   "MaxConnections = 65472\n"
				   "Threads = 1\n"
				   "Engine = io_uring\n"
				   "Allow = 10.0.0.0/8 [2001:db8::]/32:read local\n"
				   "TLS = require\n"
				   "Identity = read dn:CN=a b,O=Example\n"
				   "Identity = write psk:backup\n"
				   "MaxConnectionsPerSource = 3\n"
				   "SingleWriter = yes\n"
				   "IdleTimeout = 300\n"
				   "StartAtBoot = yes\n"
				   "ResizeReconnect = yes\n";
	struct scratch s = scratch_start();
	struct export_settings got = { 0 };
	struct failure why = { 0 };

	CHECK_EQ("", read_text(&s, "a.conf", text, &got, &why), 0);
	CHECK_STR("name", got.name, "the web's disk, \xc3\xa4");
	CHECK_STR("device", got.device, "/dev/disk/by-id/a b");
	CHECK_STR("description", got.description, "for people");
	CHECK(got.read_only && !got.direct && got.shared && got.is_default);
	CHECK_EQ("memory", got.memory, 48u << 20);
	CHECK_EQ("connections", got.max_connections, EXPORT_CONNECTIONS_MAX);
	CHECK_EQ("engine", got.engine, EXPORT_ENGINE_URING);
	CHECK_STR("rules", got.allow, "10.0.0.0/8 [2001:db8::]/32:read local");
	CHECK_EQ("TLS", got.tls, TLS_POLICY_REQUIRE);
	CHECK_STR("identities", got.identity, "read dn:CN=a b,O=Example\nwrite psk:backup");
	CHECK_EQ("connections of a source", got.max_per_source, 3);
	CHECK(got.single_writer);
	CHECK_EQ("idle", got.idle_timeout, 300);
	CHECK(got.start_at_boot && got.resize_reconnect);
	export_settings_clear(&got);
	scratch_end(&s);
}

#define DEVICE "[Export]\nDevice=/x\n"

static const struct {
	const char *text;
	const char *want;       /* behind the path */
} bad[] = {
	{ "", ": Device= is missing" },
	{ "[Export]\nName=x\n", ": Device= is missing" },
	{ "[Export]\nDevice=\n", ":2: Device=: not an absolute path" },
	{ "[Export]\nDevice=disk.img\n", ":2: Device=disk.img: not an absolute path" },
	{ DEVICE "Name=\n", ":3: Name=: the name is empty; Default=yes makes an export answer "
			    "to the empty name" },
	{ DEVICE "Memory=1M\n", ":3: Memory=1M: less than 48 MiB, what one client may need" },
	{ DEVICE "Memory=50331647\n",
	  ":3: Memory=50331647: less than 48 MiB, what one client may need" },
	{ DEVICE "MaxConnections=0\n", ":3: MaxConnections=0: not between 1 and 65472" },
	{ DEVICE "MaxConnections=65473\n", ":3: MaxConnections=65473: not between 1 and 65472" },
	{ DEVICE "Threads=0\n", ":3: Threads=0: not between 1 and 64" },
	{ DEVICE "Threads=65\n", ":3: Threads=65: not between 1 and 64" },
	{ DEVICE "Engine=magic\n", ":3: Engine=magic: neither auto nor io_uring nor threads" },
	{ DEVICE "Memory=64M\nThreads=2\n",
	  ": Memory=: less than 96 MiB, what one client of each of 2 threads may need" },
	{ DEVICE "Allow=\n", ":3: Allow=: no rule is given; leave the key out for who is on this "
			     "machine" },
	{ DEVICE "Allow=local 10.0.0.0/8:all\n", ":3: Allow=local 10.0.0.0/8:all: "
	  "10.0.0.0/8:all: \"all\" is no right; write :read or :write" },
	{ DEVICE "TLS=yes\n", ":3: TLS=yes: write off, allow or require" },
	{ DEVICE "TLS=\n", ":3: TLS=: write off, allow or require" },
	{ DEVICE "Identity=read dns:a\nIdentity=read\n", ":4: Identity=read: write dn:, dns:, "
	  "email:, uri:, ip:, fingerprint: or psk: and a name, or any" },
	{ DEVICE "Identity=read any\nTLS=off\n",
	  ": Identity=: with TLS=off nobody can say who it is" },
	{ DEVICE "MaxConnectionsPerSource=65473\n",
	  ":3: MaxConnectionsPerSource=65473: not between 0 (no limit) and 65472" },
	{ DEVICE "IdleTimeout=5s\n", ":3: IdleTimeout=5s: not a number" },
	{ DEVICE "SingleWriter=2\n", ":3: SingleWriter=2: write yes or no" },
	{ DEVICE "StartAtBoot=maybe\n", ":3: StartAtBoot=maybe: write yes or no" },
	{ DEVICE "Bitmaps=x\n", ":3: Bitmaps=: not a key of this section" },
	{ DEVICE "Device=/y\n", ":3: Device= is given twice" },
};

TEST(a_bad_file_is_named_and_leaves_the_output_alone)
{
	struct scratch s = scratch_start();

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct export_settings got = { .max_connections = 4711 };
		struct failure why = { 0 };
		char want[4400];

		CHECK(read_text(&s, "a.conf", bad[i].text, &got, &why) < 0);
		(void) snprintf(want, sizeof want, "%s%s", scratch_path(&s, "a.conf"),
		                bad[i].want);
		CHECK_STR("", why.text, want);
		CHECK_EQ("untouched", got.max_connections, 4711);
		CHECK(!got.label && !got.name && !got.device);
	}
	scratch_end(&s);
}

TEST(names_and_descriptions_have_4096_bytes_at_most)
{
	static const char *const keys[] = { "Name", "Description" };
	struct scratch s = scratch_start();
	char value[EXPORT_NAME_MAX + 2] = "", text[EXPORT_NAME_MAX + 64];

	for (size_t i = 0; i < 2 * ARRAY_LEN(keys); i++) {
		struct export_settings got = { 0 };
		struct failure why = { 0 };
		bool over = i & 1;

		memset(value, 'n', sizeof value);
		value[EXPORT_NAME_MAX + over] = '\0';
		(void) snprintf(text, sizeof text, DEVICE "%s=%s\n", keys[i / 2], value);
		CHECK_EQ(keys[i / 2], read_text(&s, "a.conf", text, &got, &why),
		         over ? -EINVAL : 0);
		CHECK_EQ(keys[i / 2], strstr(why.text, "longer than 4096 bytes") != NULL, over);
		export_settings_clear(&got);
	}
	scratch_end(&s);
}

static const struct {
	const char *path;
	const char *label;      /* NULL for a refusal */
} labels[] = {
	{ "/etc/nbd-export/exports.d/web1.conf", "web1" },
	{ "a.conf", "a" },
	{ "A-z_0:9.b\\x2d.conf", "A-z_0:9.b\\x2d" },
	{ "x.conf.conf", "x.conf" },
	{ "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd.conf",
	  "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd" },
	{ "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddde.conf", NULL },
	{ ".conf", NULL },
	{ "/x/.conf", NULL },
	{ "/x/.a.conf", NULL },
	{ "a b.conf", NULL },
	{ "a@b.conf", NULL },
	{ "a/.conf", NULL },
	{ "\xc3\xa4.conf", NULL },
	{ "a\n.conf", NULL },
	{ "a", NULL },
	{ "a.confx", NULL },
	{ "a.conf/", NULL },
	{ "", NULL },
};

TEST(labels_come_from_the_names_of_files)
{
	for (size_t i = 0; i < ARRAY_LEN(labels); i++) {
		AUTO_FREE char *label = NULL;
		struct failure why = { 0 };

		CHECK_EQ(labels[i].path, export_label_of(labels[i].path, &label, &why),
		         labels[i].label ? 0 : -EINVAL);
		CHECK_STR(labels[i].path, label, labels[i].label);
	}
}

/* What the folder's reader told about bad files: one line each. */
struct complaints {
	unsigned n;
	char text[4096];
};

static void complain(void *userdata, const char *path, const struct failure *why)
{
	struct complaints *c = userdata;
	size_t len = strlen(c->text);

	c->n++;
	CHECK(strstr(path, ".conf") != NULL);
	(void) snprintf(c->text + len, sizeof c->text - len, "%s\n", why->text);
}

static void clear_all(struct export_settings *all, size_t n)
{
	for (size_t i = 0; i < n; i++)
		export_settings_clear(&all[i]);
	free(all);
}

static void write_text(struct scratch *s, const char *name, const char *text)
{
	(void) scratch_write(s, name, text, strlen(text));
}

TEST(a_folder_is_read_by_label_and_bad_files_are_skipped)
{
	struct scratch s = scratch_start();
	struct complaints told = { 0 };
	struct failure why = { 0 };
	struct export_settings *all = NULL;
	size_t n = 0;

	write_text(&s, "b.conf", DEVICE);
	write_text(&s, "a-b.conf", DEVICE);
	write_text(&s, "a.conf", DEVICE);
	write_text(&s, "bad.conf", "[Export]\nDevice=x\n");
	write_text(&s, "a b.conf", DEVICE);
	write_text(&s, "README", "not a setting");
	write_text(&s, "a.conf~", "nor this");
	write_text(&s, ".hidden.conf", "nor this");
	CHECK_EQ("", mkdir(scratch_path(&s, "folder.conf"), 0700), 0);
	CHECK_EQ("", symlink("nowhere", scratch_path(&s, "link.conf")), 0);

	CHECK_EQ("", export_settings_read_folder(s.dir, &all, &n, complain, &told, &why), 0);
	CHECK_EQ("good", n, 3);
	if (n == 3) {
		CHECK_STR("", all[0].label, "a");
		CHECK_STR("", all[1].label, "a-b");
		CHECK_STR("", all[2].label, "b");
	}
	CHECK_EQ("bad", told.n, 4);
	CHECK(strstr(told.text, "/bad.conf:2: Device=x: not an absolute path") != NULL);
	CHECK(strstr(told.text, "a b.conf: \"a b\" cannot be an export's label") != NULL);
	CHECK(strstr(told.text, "/folder.conf: not a regular file") != NULL);
	CHECK(strstr(told.text, "/link.conf: No such file") != NULL);
	clear_all(all, n);
	scratch_end(&s);
}

TEST(two_exports_cannot_have_one_name)
{
	struct scratch s = scratch_start();
	struct complaints told = { 0 };
	struct failure why = { 0 };
	struct export_settings *all = NULL;
	size_t n = 0;

	write_text(&s, "a.conf", DEVICE "Name=disk\nDefault=yes\n");
	write_text(&s, "b.conf", DEVICE "Name=disk\n");
	write_text(&s, "c.conf", DEVICE "Name=a\n");
	write_text(&s, "d.conf", DEVICE "Default=yes\n");
	CHECK_EQ("", export_settings_read_folder(s.dir, &all, &n, complain, &told, &why), 0);
	CHECK_EQ("good", n, 2);
	CHECK_EQ("bad", told.n, 2);
	CHECK(strstr(told.text, "/b.conf: the name disk is that of a.conf already") != NULL);
	CHECK(strstr(told.text, "/d.conf: Default=yes stands in a.conf already") != NULL);
	clear_all(all, n);
	scratch_end(&s);
}

TEST(an_empty_folder_is_no_failure_and_a_missing_one_is)
{
	struct scratch s = scratch_start();
	struct complaints told = { 0 };
	struct failure why = { 0 };
	struct export_settings *all = NULL;
	size_t n = 9;

	CHECK_EQ("", export_settings_read_folder(s.dir, &all, &n, complain, &told, &why), 0);
	CHECK_EQ("", n, 0);
	n = 9;
	CHECK_EQ("", export_settings_read_folder("/nonexistent", &all, &n, complain, &told, &why),
	         -ENOENT);
	CHECK_EQ("untouched", n, 9);
	CHECK(strstr(why.text, "/nonexistent") != NULL);
	CHECK_EQ("", told.n, 0);
	scratch_end(&s);
}

#define BITMAPS_AS_USUAL \
	.bitmap_granularity = BITMAP_GRANULARITY_DEFAULT, \
	.bitmap_region = BITMAP_REGION_DEFAULT, \
	.bitmap_arm_limit = BITMAP_ARM_LIMIT_DEFAULT, \
	.bitmap_cold = BITMAP_COLD_DEFAULT

static const struct export_settings plain = {
	.label = (char *) "web1",
	.device = (char *) "/dev/sdx",
	.direct = true,
	.max_connections = 256, .threads = 1,
	BITMAPS_AS_USUAL,
};

TEST(what_is_written_reads_back)
{
	struct export_settings every = {
		.label = (char *) "web1", .name = (char *) "a = \\ \xc3\xa4 #b",
		.device = (char *) "/dev/x y", .description = (char *) "[some] ;thing",
		.read_only = true, .direct = false, .shared = true,
		.is_default = true, .memory = 100663297, .max_connections = 1, .threads = 2,
		.engine = EXPORT_ENGINE_THREADS, .allow = (char *) "any:read ::1",
		.max_per_source = 7, .single_writer = true, .idle_timeout = 60, .start_at_boot = true,
		BITMAPS_AS_USUAL,
	};
	struct scratch s = scratch_start();
	struct export_settings got = { 0 };
	struct failure why = { 0 };
	struct stat st;

	CHECK_EQ("", export_settings_write(s.dir, &every, &why), 0);
	CHECK_EQ("", export_settings_read(scratch_path(&s, "web1.conf"), &got, &why), 0);
	CHECK_STR("why", why.text, "");
	CHECK_STR("name", got.name, every.name);
	CHECK_STR("device", got.device, every.device);
	CHECK_STR("description", got.description, every.description);
	CHECK(got.read_only && !got.direct && got.shared && got.is_default);
	CHECK_EQ("memory", got.memory, every.memory);
	CHECK_EQ("connections", got.max_connections, 1);
	CHECK_EQ("threads", got.threads, 2);
	CHECK_EQ("engine", got.engine, EXPORT_ENGINE_THREADS);
	CHECK_STR("rules", got.allow, "any:read ::1");
	CHECK_EQ("connections of a source", got.max_per_source, 7);
	CHECK(got.single_writer);
	CHECK_EQ("idle", got.idle_timeout, 60);
	CHECK(got.start_at_boot);
	CHECK_EQ("", stat(scratch_path(&s, "web1.conf"), &st), 0);
	CHECK_EQ("others may read it", st.st_mode & 07777, 0644);
	export_settings_clear(&got);
	scratch_end(&s);
}

TEST(only_what_differs_is_written_and_replaces_what_was)
{
	struct scratch s = scratch_start();
	struct failure why = { 0 };
	char text[256] = "";
	FILE *in;

	write_text(&s, "web1.conf", DEVICE "Name=old\n");
	CHECK_EQ("", export_settings_write(s.dir, &plain, &why), 0);
	in = fopen(scratch_path(&s, "web1.conf"), "r");
	(void) !fread(text, 1, sizeof text - 1, in);
	(void) fclose(in);
	CHECK_STR("", text, "[Export]\nDevice=/dev/sdx\n");
	scratch_end(&s);
}

/* Nothing is left behind by a refusal: the folder can be removed as empty. */
TEST(what_the_format_cannot_carry_is_refused)
{
	static const struct {
		const char *name;
		const char *device;
		const char *want;
	} refused[] = {
		{ "a\nb", "/x", "Name= cannot hold a newline" },
		{ "a\tb", "/x", "Name= cannot hold a control character" },
		{ "a\x7f", "/x", "Name= cannot hold a control character" },
		{ " a", "/x", "Name= cannot start or end with a space" },
		{ "a ", "/x", "Name= cannot start or end with a space" },
		{ "\xff", "/x", "Name= cannot hold what is not UTF-8" },
		{ "", "/x", "Name=: the name is empty" },
		{ "a", "/x\n", "Device= cannot hold a newline" },
		{ "a", "/x ", "Device= cannot start or end with a space" },
		{ "a", "x", "Device=: not an absolute path" },
		{ "a", NULL, "Device=: not an absolute path" },
	};
	struct scratch s = scratch_start();

	for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
		struct export_settings e = plain;
		struct failure why = { 0 };

		e.name = (char *) refused[i].name;
		e.device = (char *) refused[i].device;
		CHECK_EQ(refused[i].want, export_settings_write(s.dir, &e, &why), -EINVAL);
		CHECK(strstr(why.text, refused[i].want) != NULL);
	}
	CHECK_EQ("empty", rmdir(s.dir), 0);
}

TEST(numbers_and_labels_that_could_not_be_read_are_not_written)
{
	struct export_settings few = plain, small = plain, odd = plain, loose = plain;
	struct scratch s = scratch_start();
	struct failure why = { 0 };

	few.max_connections = 0;
	CHECK(export_settings_write(s.dir, &few, &why) < 0);
	why.code = 0;
	small.memory = EXPORT_MEMORY_MIN - 1;
	CHECK(export_settings_write(s.dir, &small, &why) < 0);
	why.code = 0;
	loose.allow = (char *) "10.0.0.0/33";
	CHECK(export_settings_write(s.dir, &loose, &why) < 0);
	CHECK(strstr(why.text, "Allow=: 10.0.0.0/33: ") != NULL);
	why.code = 0;
	odd.label = (char *) "../x";
	CHECK(export_settings_write(s.dir, &odd, &why) < 0);
	why.code = 0;
	CHECK_EQ("", export_settings_write("/nonexistent", &plain, &why), -ENOENT);
	CHECK(strstr(why.text, "cannot write /nonexistent/web1.conf") != NULL);
	CHECK_EQ("empty", rmdir(s.dir), 0);
}

TEST(a_write_that_fails_leaves_nothing_behind)
{
	struct scratch s = scratch_start();
	struct failure why = { 0 };

	CHECK_EQ("in the way", mkdir(scratch_path(&s, "web1.conf"), 0700), 0);
	CHECK_EQ("", export_settings_write(s.dir, &plain, &why), -EISDIR);
	CHECK(strstr(why.text, "/web1.conf: Is a directory") != NULL);
	CHECK_EQ("", rmdir(scratch_path(&s, "web1.conf")), 0);
	CHECK_EQ("empty", rmdir(s.dir), 0);
}
