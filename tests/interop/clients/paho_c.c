/* Eclipse Paho in C, its synchronous interface with callbacks; the lines are those of ../README.md.
 * Built with -lpaho-mqtt3cs. The rule is that of wire.py: do what the manual says, tell what the library tells. */

#define _POSIX_C_SOURCE 200809L

#include <MQTTClient.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIELDS = 64, PATIENCE_MS = 10000 };

/* --- a request: word and fields, both in the line that was read ------------------------------------------------- */

static char *keys[FIELDS], *values[FIELDS];
static int count;

static char *parse(char *line) {
    char *rest = NULL, *word = strtok_r(line, " \n", &rest);
    count = 0;
    for (char *pair; count < FIELDS && (pair = strtok_r(NULL, " \n", &rest)) != NULL;) {
        char *value = strchr(pair, '=');
        if (value == NULL) continue;
        *value++ = '\0';
        keys[count] = pair;
        values[count++] = value;
    }
    return word;
}

static char *raw(const char *key) {
    for (int i = 0; i < count; i++)
        if (strcmp(keys[i], key) == 0) return values[i];
    return NULL;
}

static int number(const char *key, int otherwise) {
    const char *value = raw(key);
    return value ? atoi(value) : otherwise;
}

static int digit(char c) { return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10; }

/* Percent-decodes in place; decoding what is decoded already does no harm to what the tests send. */
static char *text(char *value) {
    if (value == NULL) return NULL;
    char *out = value;
    for (const char *in = value; *in; in++) {
        if (*in == '%' && in[1] && in[2]) {
            *out++ = (char)(digit(in[1]) << 4 | digit(in[2]));
            in += 2;
        } else {
            *out++ = *in;
        }
    }
    *out = '\0';
    return value;
}

/* Hexadecimal to bytes, in place. */
static int binary(char *value) {
    int length = value ? (int)(strlen(value) / 2) : 0;
    for (int i = 0; i < length; i++) value[i] = (char)(digit(value[2 * i]) << 4 | digit(value[2 * i + 1]));
    return length;
}

/* --- what is told ------------------------------------------------------------------------------------------------ */

static pthread_mutex_t telling = PTHREAD_MUTEX_INITIALIZER;

static void put_text(const char *key, const char *data, int length) {
    printf("%s", key);
    for (int i = 0; i < length; i++) {
        unsigned char c = (unsigned char)data[i];
        if ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') putchar(c);
        else if ((c >= '0' && c <= '9') || c == '/' || c == '-' || c == '_' || c == '.') putchar(c);
        else printf("%%%02X", c);
    }
}

static void put_hex(const char *key, const char *data, int length) {
    printf(" %s=", key);
    for (int i = 0; i < length; i++) printf("%02x", (unsigned char)data[i]);
}

static void put_properties(const MQTTProperties *list) {
    static const struct {
        enum MQTTPropertyCodes code;
        const char *key;
    } names[] = {
        {MQTTPROPERTY_CODE_MESSAGE_EXPIRY_INTERVAL, "expiry"}, {MQTTPROPERTY_CODE_PAYLOAD_FORMAT_INDICATOR, "format"},
        {MQTTPROPERTY_CODE_TOPIC_ALIAS, "alias"}, {MQTTPROPERTY_CODE_SUBSCRIPTION_IDENTIFIER, "subid"},
        {MQTTPROPERTY_CODE_CONTENT_TYPE, "content_type"}, {MQTTPROPERTY_CODE_RESPONSE_TOPIC, "response"},
        {MQTTPROPERTY_CODE_CORRELATION_DATA, "correlation"}, {MQTTPROPERTY_CODE_SESSION_EXPIRY_INTERVAL, "session_expiry"},
        {MQTTPROPERTY_CODE_RECEIVE_MAXIMUM, "receive_maximum"}, {MQTTPROPERTY_CODE_TOPIC_ALIAS_MAXIMUM, "alias_maximum"},
        {MQTTPROPERTY_CODE_ASSIGNED_CLIENT_IDENTIFER, "assigned"},
    };
    for (int i = 0; list && i < list->count; i++) {
        const MQTTProperty *property = &list->array[i];
        if (property->identifier == MQTTPROPERTY_CODE_USER_PROPERTY) {
            put_text(" user=", property->value.data.data, property->value.data.len);
            put_text(":", property->value.value.data, property->value.value.len);
        }
        for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
            if (names[n].code != property->identifier) continue;
            switch (MQTTProperty_getType(property->identifier)) {
            case MQTTPROPERTY_TYPE_BYTE: printf(" %s=%u", names[n].key, property->value.byte); break;
            case MQTTPROPERTY_TYPE_TWO_BYTE_INTEGER: printf(" %s=%u", names[n].key, property->value.integer2); break;
            case MQTTPROPERTY_TYPE_FOUR_BYTE_INTEGER:
            case MQTTPROPERTY_TYPE_VARIABLE_BYTE_INTEGER: printf(" %s=%u", names[n].key, property->value.integer4); break;
            case MQTTPROPERTY_TYPE_BINARY_DATA:
                put_hex(names[n].key, property->value.data.data, property->value.data.len);
                break;
            default:
                printf(" %s", names[n].key);
                put_text("=", property->value.data.data, property->value.data.len);
            }
        }
    }
}

static void begin(const char *word) {
    pthread_mutex_lock(&telling);
    printf("%s", word);
}

static void end(void) {
    putchar('\n');
    fflush(stdout);
    pthread_mutex_unlock(&telling);
}

static void tell(const char *word) {
    begin(word);
    end();
}

static void tell_failure(const char *word, int code) {
    const char *why = MQTTClient_strerror(code);
    begin(word);
    if (code > 0) printf(" reason=%d", code); /* what the server answered; the library's own errors are negative */
    if (why) put_text(" why=", why, (int)strlen(why));
    end();
}

/* --- the client -------------------------------------------------------------------------------------------------- */

static MQTTClient client;
static int version;
static pthread_mutex_t published_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t published_change = PTHREAD_COND_INITIALIZER;
static int published_token, published_reason;

static int on_message(void *context, char *topic, int length, MQTTClient_message *message) {
    (void)context;
    begin("message");
    put_text(" topic=", topic, length ? length : (int)strlen(topic));
    put_hex("payload", message->payload, message->payloadlen);
    printf(" qos=%d retain=%d dup=%d", message->qos, message->retained, message->dup);
    if (version == MQTTVERSION_5) put_properties(&message->properties);
    end();
    MQTTClient_freeMessage(&message);
    MQTTClient_free(topic);
    return 1;
}

static void on_lost(void *context, char *cause) {
    (void)context;
    (void)cause;
    tell("closed");
}

static void on_disconnected(void *context, MQTTProperties *properties, enum MQTTReasonCodes reason) {
    (void)context;
    (void)properties;
    begin("closed");
    printf(" reason=%d", (int)reason);
    end();
}

static void on_published(void *context, int token, int type, MQTTProperties *properties, enum MQTTReasonCodes reason) {
    (void)context;
    (void)type;
    (void)properties;
    pthread_mutex_lock(&published_lock);
    published_token = token;
    published_reason = (int)reason;
    pthread_cond_broadcast(&published_change);
    pthread_mutex_unlock(&published_lock);
}

static void add_number(MQTTProperties *list, enum MQTTPropertyCodes code, const char *key) {
    if (raw(key) == NULL) return;
    MQTTProperty property = {.identifier = code};
    int value = number(key, 0);
    switch (MQTTProperty_getType(code)) {
    case MQTTPROPERTY_TYPE_BYTE: property.value.byte = (unsigned char)value; break;
    case MQTTPROPERTY_TYPE_TWO_BYTE_INTEGER: property.value.integer2 = (unsigned short)value; break;
    default: property.value.integer4 = (unsigned)value;
    }
    MQTTProperties_add(list, &property);
}

static void add_data(MQTTProperties *list, enum MQTTPropertyCodes code, char *data, int length) {
    if (data == NULL) return;
    MQTTProperty property = {.identifier = code};
    property.value.data.data = data;
    property.value.data.len = length;
    MQTTProperties_add(list, &property);
}

static void add_text(MQTTProperties *list, enum MQTTPropertyCodes code, const char *key) {
    char *value = text(raw(key));
    add_data(list, code, value, value ? (int)strlen(value) : 0);
}

static void add_users(MQTTProperties *list) {
    for (int i = 0; i < count; i++) {
        char *colon;
        if (strcmp(keys[i], "user") != 0 || (colon = strchr(values[i], ':')) == NULL) continue;
        *colon = '\0';
        MQTTProperty property = {.identifier = MQTTPROPERTY_CODE_USER_PROPERTY};
        property.value.data.data = text(values[i]);
        property.value.data.len = (int)strlen(values[i]);
        property.value.value.data = text(colon + 1);
        property.value.value.len = (int)strlen(colon + 1);
        MQTTProperties_add(list, &property);
    }
}

static void forget(void) {
    if (client) MQTTClient_destroy(&client);
    client = NULL;
}

static void do_connect(void) {
    char uri[300];
    forget();
    version = number("version", 4);
    int five = version == MQTTVERSION_5;
    const char *transport = raw("transport"), *path = text(raw("path"));
    if (transport == NULL) transport = "ssl";
    if (path == NULL) path = "";
    snprintf(uri, sizeof uri, "%s://%s:%d%s", transport, text(raw("host")), number("port", 0), path);
    MQTTClient_createOptions creation = MQTTClient_createOptions_initializer;
    creation.MQTTVersion = version;
    char *id = text(raw("id"));
    int code = MQTTClient_createWithOptions(&client, uri, id ? id : "", MQTTCLIENT_PERSISTENCE_NONE, NULL, &creation);
    if (code != MQTTCLIENT_SUCCESS) {
        client = NULL;
        tell_failure("refused", code);
        return;
    }
    MQTTClient_setCallbacks(client, NULL, on_lost, on_message, NULL);
    if (five) {
        MQTTClient_setDisconnected(client, NULL, on_disconnected);
        MQTTClient_setPublished(client, NULL, on_published);
    }
    MQTTClient_connectOptions options = MQTTClient_connectOptions_initializer;
    MQTTClient_connectOptions options5 = MQTTClient_connectOptions_initializer5;
    MQTTClient_SSLOptions ssl = MQTTClient_SSLOptions_initializer;
    MQTTClient_willOptions will = MQTTClient_willOptions_initializer;
    MQTTProperties properties = MQTTProperties_initializer, will_properties = MQTTProperties_initializer;
    if (five) options = options5;
    ssl.trustStore = text(raw("ca"));
    ssl.keyStore = text(raw("cert"));
    ssl.privateKey = text(raw("key"));
    ssl.enableServerCertAuth = 1;
    ssl.verify = 1; /* the host name too */
    options.ssl = &ssl;
    options.MQTTVersion = version;
    options.keepAliveInterval = number("keepalive", 60);
    options.connectTimeout = number("patience", PATIENCE_MS / 1000);
    options.reliable = 0;
    if (five) options.cleanstart = number("clean", 1);
    else options.cleansession = number("clean", 1);
    if (raw("will_topic")) {
        will.topicName = text(raw("will_topic"));
        will.payload.data = raw("will_payload");
        will.payload.len = binary(raw("will_payload"));
        will.qos = number("will_qos", 0);
        will.retained = number("will_retain", 0);
        options.will = &will;
        add_number(&will_properties, MQTTPROPERTY_CODE_WILL_DELAY_INTERVAL, "will_delay");
        add_users(&will_properties);
    }
    add_number(&properties, MQTTPROPERTY_CODE_SESSION_EXPIRY_INTERVAL, "session_expiry");
    add_number(&properties, MQTTPROPERTY_CODE_RECEIVE_MAXIMUM, "receive_maximum");
    add_number(&properties, MQTTPROPERTY_CODE_TOPIC_ALIAS_MAXIMUM, "alias_maximum");
    MQTTResponse answer = MQTTResponse_initializer;
    if (five) answer = MQTTClient_connect5(client, &options, &properties, raw("will_topic") ? &will_properties : NULL);
    code = five ? (int)answer.reasonCode : MQTTClient_connect(client, &options);
    if (code != MQTTCLIENT_SUCCESS) {
        tell_failure("refused", code);
        forget();
    } else {
        begin("connected");
        if (five) put_properties(answer.properties); /* and 1.3.12 does not say whether there was a session */
        else printf(" present=%d", options.returned.sessionPresent);
        end();
    }
    if (five) MQTTResponse_free(answer);
    MQTTProperties_free(&properties);
    MQTTProperties_free(&will_properties);
}

static void do_publish(void) {
    MQTTClient_message message = MQTTClient_message_initializer;
    MQTTClient_deliveryToken token = 0;
    char *topic = text(raw("topic"));
    int five = version == MQTTVERSION_5, code;
    message.payloadlen = binary(raw("payload"));
    message.payload = raw("payload");
    message.qos = number("qos", 0);
    message.retained = number("retain", 0);
    if (!five) {
        code = MQTTClient_publishMessage(client, topic, &message, &token);
        if (code == MQTTCLIENT_SUCCESS && message.qos) code = MQTTClient_waitForCompletion(client, token, PATIENCE_MS);
        if (code == MQTTCLIENT_SUCCESS) tell("published");
        else tell_failure("failed", code);
        return;
    }
    add_number(&message.properties, MQTTPROPERTY_CODE_MESSAGE_EXPIRY_INTERVAL, "expiry");
    add_number(&message.properties, MQTTPROPERTY_CODE_PAYLOAD_FORMAT_INDICATOR, "format");
    add_number(&message.properties, MQTTPROPERTY_CODE_TOPIC_ALIAS, "alias");
    add_text(&message.properties, MQTTPROPERTY_CODE_CONTENT_TYPE, "content_type");
    add_text(&message.properties, MQTTPROPERTY_CODE_RESPONSE_TOPIC, "response");
    int length = binary(raw("correlation"));
    add_data(&message.properties, MQTTPROPERTY_CODE_CORRELATION_DATA, raw("correlation"), length);
    add_users(&message.properties);
    pthread_mutex_lock(&published_lock);
    published_token = 0;
    pthread_mutex_unlock(&published_lock);
    MQTTResponse answer = MQTTClient_publishMessage5(client, topic, &message, &token);
    code = (int)answer.reasonCode;
    MQTTResponse_free(answer);
    if (code == MQTTCLIENT_SUCCESS && message.qos) {
        struct timespec deadline;
        int late = 0;
        clock_gettime(CLOCK_REALTIME, &deadline);
        deadline.tv_sec += PATIENCE_MS / 1000;
        pthread_mutex_lock(&published_lock);
        while (published_token != token && !late)
            late = pthread_cond_timedwait(&published_change, &published_lock, &deadline) != 0;
        code = late ? MQTTCLIENT_FAILURE : published_reason;
        pthread_mutex_unlock(&published_lock);
    }
    MQTTProperties_free(&message.properties);
    if (code < 0) {
        tell_failure("failed", code);
        return;
    }
    begin("published");
    if (message.qos) printf(" reason=%d", code);
    end();
}

static void do_subscribe(void) {
    char *filter = text(raw("filter"));
    int code;
    if (version == MQTTVERSION_5) {
        MQTTSubscribe_options options = MQTTSubscribe_options_initializer;
        MQTTProperties properties = MQTTProperties_initializer;
        options.noLocal = (unsigned char)number("no_local", 0);
        options.retainAsPublished = (unsigned char)number("as_published", 0);
        options.retainHandling = (unsigned char)number("handling", 0);
        add_number(&properties, MQTTPROPERTY_CODE_SUBSCRIPTION_IDENTIFIER, "subid");
        MQTTResponse answer = MQTTClient_subscribe5(client, filter, number("qos", 0), &options, &properties);
        code = (int)answer.reasonCode;
        MQTTResponse_free(answer);
        MQTTProperties_free(&properties);
    } else {
        code = MQTTClient_subscribe(client, filter, number("qos", 0));
        if (code == MQTTCLIENT_SUCCESS) code = number("qos", 0); /* it tells of 0x80, not of a lower QoS */
    }
    if (code < 0) {
        tell_failure("failed", code);
        return;
    }
    begin("subscribed");
    printf(" reason=%d", code);
    end();
}

static void do_unsubscribe(void) {
    char *filter = text(raw("filter"));
    if (version == MQTTVERSION_5) MQTTResponse_free(MQTTClient_unsubscribe5(client, filter, NULL));
    else MQTTClient_unsubscribe(client, filter);
    tell("unsubscribed");
}

static void do_disconnect(void) {
    if (client && MQTTClient_isConnected(client)) {
        if (version == MQTTVERSION_5) MQTTClient_disconnect5(client, 1000, MQTTREASONCODE_SUCCESS, NULL);
        else MQTTClient_disconnect(client, 1000);
    }
    forget();
    tell("disconnected");
}

int main(void) {
    static const struct {
        const char *word;
        void (*act)(void);
    } actions[] = {
        {"connect", do_connect}, {"publish", do_publish}, {"subscribe", do_subscribe},
        {"unsubscribe", do_unsubscribe}, {"disconnect", do_disconnect},
    };
    MQTTClient_init_options init = MQTTClient_init_options_initializer;
    init.do_openssl_init = 1;
    MQTTClient_global_init(&init);
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, stdin) > 0) {
        const char *word = parse(line);
        for (size_t i = 0; word && i < sizeof actions / sizeof *actions; i++)
            if (strcmp(word, actions[i].word) == 0) actions[i].act();
    }
    free(line);
    return 0;
}
