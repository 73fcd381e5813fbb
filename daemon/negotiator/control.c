/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the negotiator tells on its control socket, and the one thing it does there. */
#include "negotiator/control.h"

#include "negotiator/export-link.h"

#define INTERFACE "org.nbd_export.Negotiator1"

static int get_handshakes(sd_bus *bus, const char *path, const char *interface,
                          const char *property, sd_bus_message *reply, void *userdata,
                          sd_bus_error *ret_error)
{
	const struct server *server = userdata;

	(void) bus, (void) path, (void) interface, (void) property, (void) ret_error;
	return sd_bus_message_append(reply, "u", server_figures(server).n_handshakes);
}

static int get_clients(sd_bus *bus, const char *path, const char *interface, const char *property,
                       sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	const struct server *server = userdata;

	(void) bus, (void) path, (void) interface, (void) property, (void) ret_error;
	return sd_bus_message_append(reply, "u", server_figures(server).n_live);
}

static int get_refused(sd_bus *bus, const char *path, const char *interface, const char *property,
                       sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	const struct server *server = userdata;

	(void) bus, (void) path, (void) interface, (void) property, (void) ret_error;
	return sd_bus_message_append(reply, "t", server_figures(server).n_refused);
}

static int get_exports(sd_bus *bus, const char *path, const char *interface, const char *property,
                       sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	const struct server *server = userdata;

	(void) bus, (void) path, (void) interface, (void) property, (void) ret_error;
	return sd_bus_message_append(reply, "u", (unsigned) server_figures(server).n_exports);
}

static int get_since(sd_bus *bus, const char *path, const char *interface, const char *property,
                     sd_bus_message *reply, void *userdata, sd_bus_error *ret_error)
{
	const struct server *server = userdata;

	(void) bus, (void) path, (void) interface, (void) property, (void) ret_error;
	return sd_bus_message_append(reply, "t", server->started);
}

static int append_export(sd_bus_message *reply, const struct catalogue_entry *entry)
{
	return sd_bus_message_append(reply, "a{sv}", 6u,
	                             "Label", "s", entry->label,
	                             "Name", "s", entry->name,
	                             "Allow", "s", entry->rules_text,
	                             "TLS", "s", tls_policy_word(entry->tls),
	                             "Clients", "u", entry->link->places.n,
	                             "Known", "b", entry->link->state == LINK_READY);
}

static int on_list_exports(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	const struct server *server = userdata;
	sd_bus_message *reply = NULL;
	int r = sd_bus_message_new_method_return(m, &reply);

	(void) ret_error;
	if (r >= 0)
		r = sd_bus_message_open_container(reply, 'a', "a{sv}");
	for (size_t i = 0; i < server->catalogue->n && r >= 0; i++)
		r = append_export(reply, &server->catalogue->entries[i]);
	if (r >= 0)
		r = sd_bus_message_close_container(reply);
	if (r >= 0)
		r = sd_bus_send(NULL, reply, NULL);
	sd_bus_message_unref(reply);
	return r < 0 ? r : 1;
}

static int on_reload(sd_bus_message *m, void *userdata, sd_bus_error *ret_error)
{
	struct failure why = { 0 };
	int r = control_check_change(m, "negotiator", ret_error);

	if (r < 0)
		return r;
	if (server_reload(userdata, &why) < 0)
		return sd_bus_error_set(ret_error, CONTROL_ERROR_FAILED, why.text);
	return sd_bus_reply_method_return(m, "");
}

static const sd_bus_vtable vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_PROPERTY("Handshakes", "u", get_handshakes, 0, 0),
	SD_BUS_PROPERTY("Clients", "u", get_clients, 0, 0),
	SD_BUS_PROPERTY("Refused", "t", get_refused, 0, 0),
	SD_BUS_PROPERTY("Exports", "u", get_exports, 0, 0),
	SD_BUS_PROPERTY("Since", "t", get_since, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_METHOD("ListExports", "", "aa{sv}", on_list_exports, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_METHOD("Reload", "", "", on_reload, SD_BUS_VTABLE_UNPRIVILEGED),
	SD_BUS_VTABLE_END,
};

int negotiator_control_serve(struct server *server, int fd, struct control_server **ret,
                             struct failure *why)
{
	static struct control_object object = {
		.path = "/org/nbd_export/negotiator", .interface = INTERFACE, .vtable = vtable,
	};

	object.userdata = server;
	control_trust_own_user();
	return control_serve(server->event, fd, &object, ret, why);
}
