"""Every numbered statement of MQTT 3.1.1 (appendix B, 141) and of MQTT 5.0 (appendix B, 251), and what proves it here.

The rule it keeps: data only. A row is (number, what it says in a few words, tests, why it does not bind a server). It
has tests, or a reason, or both: what a client must do has a test of what the broker does to one that does not, wherever
that shows. `MQTT-3.1.2.7` and `MQTT-3-8.3-4` are spelled as 3.1.1 spells them.

A test is FILE::NAME: the file by its key in FILES, the name without "test_". `wrong::GROUP` is a group of
test_wrong_packets.py in the statement's version.
"""

from __future__ import annotations

from dataclasses import dataclass

HERE = "tests/broker/"
FILES = {
    **{key: f"{HERE}test_broker_{key}.py" for key in ("connect", "errors", "limits", "qos", "retained", "rules")},
    **{key: f"{HERE}test_broker_{key}.py" for key in ("sessions", "streams", "time", "v5", "wills")},
    "subs": f"{HERE}test_broker_subscriptions.py",
    "access": f"{HERE}test_access.py",
    "server": f"{HERE}test_server.py",
    "ws": f"{HERE}test_transport_ws.py",
    **{
        f"c.{key}": f"{HERE}conformance/test_{key}.py"
        for key in ("format", "connect", "publish", "subscribe", "shared", "authentication", "network")
    },
}
WRONG = f"{HERE}test_wrong_packets.py::test_wrong_packets_end_as_the_standard_says[{{}}-v{{}}]"


@dataclass(frozen=True)
class Statement:
    """One numbered statement. `tests` are node ids of pytest; `reason`: why it does not bind a server, else empty."""

    version: str  # "3.1.1" or "5.0"
    number: str  # as in the standard's appendix, "MQTT-3.1.0-1"
    meaning: str
    tests: tuple[str, ...]
    reason: str


CLIENT = "binds clients"

Row = tuple[str, str, str] | tuple[str, str, str, str]

# fmt: off
# --- MQTT 3.1.1 -------------------------------------------------------------------------------------------------------

V311: list[Row] = [
    # 1, 2: data and packets
    ("1.5.3-1", "strings are well-formed UTF-8", "c.format::every_string_of_a_client_is_judged wrong::not_utf8"),
    ("1.5.3-2", "strings have no U+0000", "c.format::every_string_of_a_client_is_judged wrong::not_utf8"),
    ("1.5.3-3", "a byte order mark is a character", "c.format::a_byte_order_mark_is_a_character"),
    ("2.2.2-1", "reserved flags are as in the table", "c.format::reserved_flags_are_written_as_the_table_says"),
    ("2.2.2-2", "wrong flags close the connection", "wrong::wrong_flags wrong::reserved_types"),
    ("2.3.1-1", "identifiers where they belong, and not 0", "wrong::identifiers_of_zero"),
    ("2.3.1-2", "a client takes unused identifiers", "c.publish::a_new_message_under_an_identifier_that_is_free_again",
     CLIENT),
    ("2.3.1-3", "a client resends under the same identifier", "qos::a_qos_2_message_is_routed_once_across_connections",
     CLIENT),
    ("2.3.1-4", "so does a server", "qos::identifiers_are_unique_among_those_under_way "
     "qos::identifiers_wrap_from_65535_to_1_and_skip_none_that_is_under_way"),
    ("2.3.1-5", "QoS 0 has no identifier", "c.format::qos_0_has_no_packet_identifier"),
    ("2.3.1-6", "PUBACK, PUBREC, PUBREL repeat it", "c.format::a_packet_identifier_comes_back_in_its_answer"),
    ("2.3.1-7", "SUBACK, UNSUBACK repeat it", "c.format::a_packet_identifier_comes_back_in_its_answer"),
    # 3.1: CONNECT
    ("3.1.0-1", "CONNECT comes first", "connect::the_first_packet_is_a_connect wrong::not_first"),
    ("3.1.0-2", "a second CONNECT ends the connection", "connect::a_second_connect_is_a_protocol_error "
     "wrong::connect_again"),
    ("3.1.2-1", "another protocol name is not ours", "wrong::protocol_names"),
    ("3.1.2-2", "another level: return code 1, closed", "connect::an_unknown_version_is_answered_with_return_code_1 "
     "wrong::protocol_levels"),
    ("3.1.2-3", "the reserved connect flag is 0", "wrong::connect_flags"),
    ("3.1.2-4", "clean session 0 resumes or begins", "sessions::a_kept_session_is_present_and_has_its_subscriptions"),
    ("3.1.2-5", "QoS 1 and 2 are kept for it",
     "c.connect::messages_that_match_at_the_end_of_the_connection_are_kept"),
    ("3.1.2-6", "clean session 1 begins anew, for one connection", "sessions::a_clean_start_discards_the_session "
     "sessions::a_clean_session_ends_with_its_connection"),
    ("3.1.2.7", "retained messages outlive sessions",
     "c.connect::the_end_of_a_session_leaves_retained_messages_alone "
     "retained::retained_messages_outlive_their_publisher"),
    ("3.1.2-8", "a will is published unless withdrawn",
     "wills::a_will_is_published_when_its_client_goes_without_a_word"),
    ("3.1.2-9", "will flag: topic and message are there", "c.connect::the_fields_of_a_connect_are_found_in_their_order "
     "wrong::flags_without_payload"),
    ("3.1.2-10", "a will ends with publication or DISCONNECT",
     "c.connect::a_will_is_with_the_session_until_it_is_published wills::a_goodbye_deletes_the_will"),
    ("3.1.2-11", "no will flag: its fields are 0 and absent", "wrong::connect_flags wrong::flags_without_payload"),
    ("3.1.2-12", "no will flag: nothing is published", "c.connect::without_a_will_flag_there_is_no_will"),
    ("3.1.2-13", "no will flag: will QoS 0", "wrong::connect_flags"),
    ("3.1.2-14", "will QoS is not 3", "c.connect::a_will_has_one_of_three_qos wrong::connect_flags"),
    ("3.1.2-15", "no will flag: will retain 0", "wrong::connect_flags"),
    ("3.1.2-16", "will retain 0: not retained", "wills::a_will_is_published_as_it_was_left"),
    ("3.1.2-17", "will retain 1: retained", "wills::a_will_is_published_as_it_was_left"),
    ("3.1.2-18", "no user name flag, no user name", "c.connect::the_fields_of_a_connect_are_found_in_their_order "
     "wrong::flags_without_payload"),
    ("3.1.2-19", "user name flag, user name", "c.connect::the_fields_of_a_connect_are_found_in_their_order "
     "wrong::flags_without_payload"),
    ("3.1.2-20", "no password flag, no password", "c.connect::the_fields_of_a_connect_are_found_in_their_order "
     "wrong::flags_without_payload"),
    ("3.1.2-21", "password flag, password", "c.connect::the_fields_of_a_connect_are_found_in_their_order "
     "wrong::flags_without_payload"),
    ("3.1.2-22", "no password without user name", "c.connect::a_password_needs_a_user_name_before_v5 "
     "wrong::connect_flags"),
    ("3.1.2-23", "a client pings within its keep alive", "time::any_packet_keeps_a_connection_alive", CLIENT),
    ("3.1.2-24", "1.5 times keep alive, then closed", "time::keep_alive_is_one_and_a_half_times_exactly "
     "server::silence_beyond_the_keep_alive_ends_a_connection"),
    ("3.1.3-1", "the payload's fields have an order", "c.connect::the_fields_of_a_connect_are_found_in_their_order"),
    ("3.1.3-2", "the client identifier names the session", "c.connect::an_identifier_is_compared_as_it_is"),
    ("3.1.3-3", "it is there, and first", "c.connect::the_fields_of_a_connect_are_found_in_their_order wrong::cut"),
    ("3.1.3-4", "it is UTF-8", "c.format::every_string_of_a_client_is_judged"),
    ("3.1.3-5", "1 to 23 letters and digits are taken",
     "c.connect::client_identifiers_that_every_server_takes limits::max_client_id"),
    ("3.1.3-6", "an empty one gets a unique one", "access::an_empty_client_id_gets_a_new_one_each_time"),
    ("3.1.3-7", "an empty one goes with clean session 1",
     "access::before_5_an_empty_client_id_needs_a_clean_session", CLIENT),
    ("3.1.3-8", "else return code 2, closed", "access::before_5_an_empty_client_id_needs_a_clean_session "
     "c.connect::a_rejected_identifier_is_told_and_the_connection_closed c.network::an_empty_client_identifier"),
    ("3.1.3-9", "rejected: return code 2, closed", "limits::max_client_id "
     "c.connect::a_rejected_identifier_is_told_and_the_connection_closed"),
    ("3.1.3-10", "the will topic is UTF-8", "c.format::every_string_of_a_client_is_judged wrong::not_utf8"),
    ("3.1.3-11", "the user name is UTF-8", "c.format::every_string_of_a_client_is_judged wrong::not_utf8"),
    ("3.1.4-1", "a CONNECT is validated, else closed without CONNACK",
     "connect::a_malformed_connect_closes_without_an_answer wrong::cut wrong::too_many"),
    ("3.1.4-2", "a client identifier is taken over", "sessions::a_client_identifier_is_taken_over "
     "server::a_second_connection_of_a_node_takes_over"),
    ("3.1.4-3", "clean session is processed", "sessions::a_clean_start_discards_the_session"),
    ("3.1.4-4", "CONNACK 0", "connect::connack_before_v5_is_two_bytes_of_success"),
    ("3.1.4-5", "what follows a refused CONNECT is not processed",
     "connect::what_follows_a_refused_connect_is_not_processed"),
    # 3.2: CONNACK
    ("3.2.0-1", "CONNACK comes first", "connect::an_accepted_client_gets_connack_first_and_once"),
    ("3.2.2-1", "clean session 1: session present 0", "sessions::a_clean_start_discards_the_session"),
    ("3.2.2-2", "kept: session present 1", "sessions::a_kept_session_is_present_and_has_its_subscriptions"),
    ("3.2.2-3", "not kept: session present 0", "sessions::a_kept_session_is_present_and_has_its_subscriptions"),
    ("3.2.2-4", "refused: session present 0", "c.format::connack_flags_have_one_bit "
     "c.connect::a_rejected_identifier_is_told_and_the_connection_closed"),
    ("3.2.2-5", "refused: closed", "connect::a_refusal_says_why_in_the_words_of_each_version"),
    ("3.2.2-6", "no code applies: closed without CONNACK", "connect::a_malformed_connect_closes_without_an_answer"),
    # 3.3: PUBLISH
    ("3.3.1-1", "redelivery has DUP", "c.publish::dup_is_set_on_redelivery_only "
     "qos::redelivery_is_in_order_with_dup_and_before_anything_new"),
    ("3.3.1-2", "QoS 0 has no DUP", "c.format::qos_0_has_no_packet_identifier wrong::wrong_flags"),
    ("3.3.1-3", "DUP is not passed on", "qos::dup_is_not_passed_on c.publish::dup_is_set_on_redelivery_only"),
    ("3.3.1-4", "QoS 3 closes the connection", "c.publish::qos_3_ends_the_connection wrong::wrong_flags"),
    ("3.3.1-5", "RETAIN stores message and QoS", "c.publish::a_retained_message_of_qos_0_replaces_what_was_there"),
    ("3.3.1-6", "new subscriptions get it",
     "retained::the_last_retained_message_of_a_topic_goes_to_a_new_subscription"),
    ("3.3.1-7", "one of QoS 0 replaces it", "c.publish::a_retained_message_of_qos_0_replaces_what_was_there"),
    ("3.3.1-8", "RETAIN is 1 to a new subscription",
     "retained::the_last_retained_message_of_a_topic_goes_to_a_new_subscription"),
    ("3.3.1-9", "RETAIN is 0 to an older one",
     "retained::retain_is_not_set_where_the_subscription_was_there_before"),
    ("3.3.1-10", "an empty payload clears", "retained::an_empty_payload_clears "
     "c.publish::an_empty_retained_payload_is_never_kept"),
    ("3.3.1-11", "an empty one is not stored", "c.publish::an_empty_retained_payload_is_never_kept"),
    ("3.3.1-12", "without RETAIN the store stays",
     "retained::a_message_that_is_not_retained_changes_nothing_in_the_store"),
    ("3.3.2-1", "the topic name is first, and UTF-8", "c.format::every_string_of_a_client_is_judged wrong::cut"),
    ("3.3.2-2", "and has no wildcards", "c.publish::wildcards_in_a_topic_name_end_the_connection wrong::topic_names"),
    ("3.3.2-3", "what arrives matches its filter",
     "c.publish::the_topic_that_arrives_is_the_one_that_was_published"),
    ("3.3.4-1", "the answer is the QoS's", "qos::every_qos_is_answered_as_it_should"),
    ("3.3.5-1", "overlapping: the highest QoS",
     "subs::overlapping_subscriptions_get_one_message_at_the_highest_qos"),
    ("3.3.5-2", "denied: acknowledged or closed",
     "c.publish::a_denied_publication_is_acknowledged_or_the_connection_closed "
     "rules::a_denied_publication_goes_nowhere"),
    ("3.6.1-1", "PUBREL has flags 0010", "wrong::wrong_flags"),
    # 3.8, 3.9: SUBSCRIBE
    ("3.8.1-1", "SUBSCRIBE has flags 0010", "wrong::wrong_flags"),
    ("3.8.3-1", "filters are UTF-8", "c.format::every_string_of_a_client_is_judged wrong::not_utf8"),
    ("3.8.3-2", "wildcards are supported, or refused", "c.subscribe::filters_with_wildcards_are_supported "
     "v5::wildcards_switched_off_are_told_and_refused"),
    ("3.8.3-3", "at least one filter", "c.subscribe::no_filter_at_all_is_an_error wrong::cut"),
    ("3-8.3-4", "reserved bits and QoS 3 close", "wrong::options"),
    ("3.8.4-1", "SUBSCRIBE is answered", "subs::suback_has_a_code_for_each_filter_in_order"),
    ("3.8.4-2", "with its identifier", "c.format::a_packet_identifier_comes_back_in_its_answer"),
    ("3.8.4-3", "the same filter replaces; retained come again",
     "c.subscribe::retained_messages_come_again_when_a_subscription_is_replaced subs::subscribing_again_replaces"),
    ("3.8.4-4", "many filters are as many SUBSCRIBEs", "c.subscribe::many_filters_at_once_are_as_many_one_by_one"),
    ("3.8.4-5", "a return code for each", "subs::suback_has_a_code_for_each_filter_in_order "
     "c.subscribe::many_filters_at_once_are_as_many_one_by_one"),
    ("3.8.4-6", "messages at the lower QoS", "qos::a_message_arrives_at_the_lower_of_both_qos "
     "c.subscribe::the_qos_that_is_granted_is_the_one_that_is_told "
     "retained::a_retained_message_comes_at_the_lower_qos"),
    ("3.9.3-1", "return codes in order", "subs::suback_has_a_code_for_each_filter_in_order"),
    ("3.9.3-2", "return codes 0, 1, 2, 0x80", "c.format::every_code_that_is_said_is_in_its_table"),
    # 3.10 to 3.14
    ("3.10.1-1", "UNSUBSCRIBE has flags 0010", "wrong::wrong_flags"),
    ("3.10.3-1", "filters are UTF-8", "c.format::every_string_of_a_client_is_judged wrong::not_utf8"),
    ("3.10.3-2", "at least one filter", "c.subscribe::no_filter_at_all_is_an_error wrong::cut"),
    ("3.10.4-1", "compared character by character", "c.subscribe::filters_are_compared_character_by_character"),
    ("3.10.4-2", "nothing new comes", "c.subscribe::after_unsubscribe_nothing_new_and_what_was_begun"),
    ("3.10.4-3", "what was begun is completed", "c.subscribe::after_unsubscribe_nothing_new_and_what_was_begun"),
    ("3.10.4-4", "UNSUBACK with its identifier", "c.format::a_packet_identifier_comes_back_in_its_answer"),
    ("3.10.4-5", "also when nothing was deleted", "subs::unsubscribe_ends_a_subscription_and_is_answered"),
    ("3.10.4-6", "many filters, one UNSUBACK", "c.subscribe::many_filters_at_once_are_as_many_one_by_one"),
    ("3.12.4-1", "PINGREQ is answered", "connect::an_accepted_client_gets_connack_first_and_once"),
    ("3.14.1-1", "DISCONNECT's reserved bits are judged", "wrong::wrong_flags"),
    ("3.14.4-1", "a client closes after DISCONNECT", "c.network::the_end_after_a_disconnect", CLIENT),
    ("3.14.4-2", "a client sends nothing after it", "sessions::nothing_is_read_behind_a_disconnect", CLIENT),
    ("3.14.4-3", "DISCONNECT discards the will", "wills::a_goodbye_deletes_the_will"),
    # 4: behaviour
    ("4.1.0-1", "state is kept for the whole session", "sessions::a_kept_session_is_present_and_has_its_subscriptions "
     "qos::messages_wait_for_a_client_that_is_away"),
    ("4.1.0-2", "a session lasts as long as its connection",
     "sessions::a_session_does_not_expire_while_it_is_connected"),
    ("4.3.1-1", "QoS 0 is sent with QoS 0 and DUP 0", "c.format::qos_0_has_no_packet_identifier"),
    ("4.3.2-1", "the sender's side of QoS 1", "c.publish::qos_1_is_kept_until_its_puback"),
    ("4.3.2-2", "the receiver's side of QoS 1", "qos::every_qos_is_answered_as_it_should "
     "c.publish::a_new_message_under_an_identifier_that_is_free_again"),
    ("4.3.3-1", "the sender's side of QoS 2", "c.publish::qos_2_is_kept_step_by_step "
     "qos::qos_2_to_a_client_goes_through_its_four_steps"),
    ("4.3.3-2", "the receiver's side of QoS 2", "qos::qos_2_again_is_acknowledged_but_not_routed wrong::qos_2_in"),
    ("4.4.0-1", "unacknowledged packets are sent again on reconnect",
     "qos::redelivery_is_in_order_with_dup_and_before_anything_new"),
    ("4.5.0-1", "messages go to every session that matches", "qos::messages_wait_for_a_client_that_is_away"),
    ("4.5.0-2", "a client acknowledges what it gets", "", CLIENT),
    ("4.6.0-1", "a client resends in order", "", CLIENT),
    ("4.6.0-2", "a client sends PUBACKs in order", "qos::acknowledgements_may_come_in_any_order", CLIENT),
    ("4.6.0-3", "a client sends PUBRECs in order", "", CLIENT),
    ("4.6.0-4", "a client sends PUBRELs in order", "", CLIENT),
    ("4.6.0-5", "every topic is ordered", "streams::messages_of_a_publisher_arrive_in_its_order"),
    ("4.6.0-6", "messages of a client arrive in its order", "streams::messages_of_a_publisher_arrive_in_its_order"),
    ("4.7.1-1", "no wildcards in topic names", "c.publish::wildcards_in_a_topic_name_end_the_connection "
     "wrong::topic_names"),
    ("4.7.1-2", "# is last and alone", "c.subscribe::a_hash_is_last_and_alone_in_its_level wrong::filters"),
    ("4.7.1-3", "+ takes a whole level", "c.subscribe::a_plus_stands_for_one_level_wherever_it_is wrong::filters"),
    ("4.7.2-1", "leading wildcards do not match $", "c.subscribe::topics_of_the_server_are_not_for_leading_wildcards"),
    ("4.7.3-1", "at least one character", "c.subscribe::at_least_one_character"),
    ("4.7.3-2", "no U+0000", "c.subscribe::no_null_character"),
    ("4.7.3-3", "at most 65,535 bytes", "c.subscribe::the_longest_topic_there_is"),
    ("4.7.3-4", "nothing is normalized", "c.publish::the_topic_that_arrives_is_the_one_that_was_published "
     "subs::what_a_filter_matches"),
    ("4.8.0-1", "a violation closes its connection",
     "errors::an_invalid_packet_ends_its_connection_and_no_other wrong::cut"),
    ("4.8.0-2", "so does a transient error in a control packet",
     "limits::what_is_answered_to_a_client_that_never_reads_is_bounded limits::max_parked_bytes"),
    # 6, 7: WebSocket, conformance
    ("6.0.0-1", "WebSocket: binary frames only",
     "ws::mqtt_comes_through ws::wrong_frames_end_the_connection_with_their_code"),
    ("6.0.0-2", "packets and frames are not aligned", "ws::a_packet_may_span_frames_and_a_frame_may_hold_packets"),
    ("6.0.0-3", "a client offers mqtt", "ws::a_handshake_that_is_none", CLIENT),
    ("6.0.0-4", "the server selects mqtt", "ws::mqtt_comes_through"),
    ("7.0.0-1", "a server that connects to servers is a client too", "",
     "the gateway opens no connection to another server"),
    ("7.0.0-2", "no extension is required", "c.network::a_plain_client_needs_nothing_of_ours"),
    ("7.1.1-1", "a server has an ordered, lossless transport", "c.network::a_plain_client_needs_nothing_of_ours "
     "streams::it_does_not_matter_how_a_stream_is_cut"),
    ("7.1.2-1", "so does a client", "", CLIENT),
]

# --- MQTT 5.0 ---------------------------------------------------------------------------------------------------------

V5: list[Row] = [
    # 1, 2: data and packets
    ("1.5.4-1", "strings are well-formed UTF-8", "c.format::every_string_of_a_client_is_judged wrong::not_utf8"),
    ("1.5.4-2", "strings have no U+0000", "c.format::every_string_of_a_client_is_judged wrong::not_utf8"),
    ("1.5.4-3", "a byte order mark is a character", "c.format::a_byte_order_mark_is_a_character"),
    ("1.5.5-1", "variable byte integers are shortest", "c.format::lengths_are_written_in_the_fewest_bytes "
     "wrong::remaining_lengths wrong::framing"),
    ("1.5.7-1", "both strings of a pair are UTF-8", "c.format::every_string_of_a_client_is_judged wrong::not_utf8"),
    ("2.1.3-1", "reserved flags are as in the table", "c.format::reserved_flags_are_written_as_the_table_says "
     "wrong::wrong_flags"),
    ("2.2.1-2", "QoS 0 has no identifier", "c.format::qos_0_has_no_packet_identifier"),
    ("2.2.1-3", "a client takes unused identifiers, not 0", "wrong::identifiers_of_zero", CLIENT),
    ("2.2.1-4", "so does a server", "qos::identifiers_are_unique_among_those_under_way "
     "qos::identifiers_wrap_from_65535_to_1_and_skip_none_that_is_under_way"),
    ("2.2.1-5", "PUBACK to PUBCOMP repeat it", "c.format::a_packet_identifier_comes_back_in_its_answer"),
    ("2.2.1-6", "SUBACK, UNSUBACK repeat it", "c.format::a_packet_identifier_comes_back_in_its_answer"),
    ("2.2.2-1", "no properties is a length of 0", "c.format::no_properties_are_written_as_a_length_of_zero "
     "wrong::framing"),
    # 3.1: CONNECT
    ("3.1.0-1", "CONNECT comes first", "connect::the_first_packet_is_a_connect wrong::not_first"),
    ("3.1.0-2", "a second CONNECT is a Protocol Error", "connect::a_second_connect_is_a_protocol_error "
     "wrong::connect_again"),
    ("3.1.2-1", "another protocol name is not ours: closed", "wrong::protocol_names"),
    ("3.1.2-2", "another level: told perhaps, closed", "connect::an_unknown_version_is_answered_with_return_code_1 "
     "wrong::protocol_levels"),
    ("3.1.2-3", "the reserved connect flag is 0", "wrong::connect_flags"),
    ("3.1.2-4", "clean start 1 begins anew", "sessions::a_clean_start_discards_the_session"),
    ("3.1.2-5", "clean start 0 resumes", "sessions::a_kept_session_is_present_and_has_its_subscriptions"),
    ("3.1.2-6", "or begins, when there is none", "sessions::a_kept_session_is_present_and_has_its_subscriptions"),
    ("3.1.2-7", "a will is stored with the session", "wills::a_will_is_published_when_its_client_goes_without_a_word "
     "wills::a_will_belongs_to_the_connection_that_left_it"),
    ("3.1.2-8", "it is published in time, unless withdrawn",
     "wills::a_will_is_published_when_its_client_goes_without_a_word wills::a_will_waits_for_its_delay "
     "wills::a_will_does_not_wait_beyond_the_end_of_its_session "
     "wills::a_clean_start_within_the_delay_publishes_the_will "
     "wills::a_goodbye_with_any_other_reason_publishes_it"),
    ("3.1.2-9", "will flag: its fields are there", "c.connect::the_fields_of_a_connect_are_found_in_their_order "
     "wrong::flags_without_payload"),
    ("3.1.2-10", "a will ends with publication or DISCONNECT",
     "c.connect::a_will_is_with_the_session_until_it_is_published wills::a_goodbye_deletes_the_will"),
    ("3.1.2-11", "no will flag: will QoS 0", "wrong::connect_flags"),
    ("3.1.2-12", "will QoS is not 3", "c.connect::a_will_has_one_of_three_qos wrong::connect_flags"),
    ("3.1.2-13", "no will flag: will retain 0", "wrong::connect_flags"),
    ("3.1.2-14", "will retain 0: not retained", "wills::a_will_is_published_as_it_was_left"),
    ("3.1.2-15", "will retain 1: retained", "wills::a_will_is_published_as_it_was_left"),
    ("3.1.2-16", "no user name flag, no user name", "c.connect::the_fields_of_a_connect_are_found_in_their_order "
     "wrong::flags_without_payload"),
    ("3.1.2-17", "user name flag, user name", "c.connect::the_fields_of_a_connect_are_found_in_their_order "
     "wrong::flags_without_payload"),
    ("3.1.2-18", "no password flag, no password", "c.connect::the_fields_of_a_connect_are_found_in_their_order "
     "wrong::flags_without_payload"),
    ("3.1.2-19", "password flag, password", "c.connect::the_fields_of_a_connect_are_found_in_their_order "
     "wrong::flags_without_payload"),
    ("3.1.2-20", "a client pings within its keep alive", "time::any_packet_keeps_a_connection_alive", CLIENT),
    ("3.1.2-21", "a client takes the server's keep alive",
     "connect::server_keep_alive_is_told_only_when_it_differs "
     "time::a_keep_alive_set_by_the_server_is_the_one_that_counts", CLIENT),
    ("3.1.2-22", "1.5 times keep alive, then closed", "time::keep_alive_is_one_and_a_half_times_exactly "
     "server::silence_beyond_the_keep_alive_ends_a_connection"),
    ("3.1.2-23", "sessions are kept for their expiry interval", "sessions::a_session_expires_after_its_interval "
     "sessions::the_interval_of_the_last_connect_counts"),
    ("3.1.2-24", "no packet above the client's maximum", "c.connect::nothing_larger_than_the_client_takes_is_sent "
     "c.authentication::an_auth_that_does_not_fit_is_not_sent"),
    ("3.1.2-25", "one too large counts as sent", "qos::a_message_too_large_for_its_client_is_skipped "
     "c.connect::one_too_large_is_dropped_for_that_client_alone v5::a_message_too_large_to_be_sent_teaches_no_alias"),
    ("3.1.2-26", "no alias above the client's maximum", "c.connect::aliases_stay_within_what_the_client_takes"),
    ("3.1.2-27", "no alias without a maximum", "c.connect::without_a_maximum_there_are_no_aliases"),
    ("3.1.2-28", "response information only when asked for",
     "c.connect::no_response_information_unless_it_is_asked_for v5::response_information_is_for_who_asks"),
    ("3.1.2-29", "reasons are explained only when asked for",
     "c.connect::reason_strings_only_where_they_are_asked_for v5::reasons_are_explained_to_who_asks"),
    ("3.1.2-30", "with a method, only AUTH until CONNACK", "v5::anything_else_in_an_exchange_ends_it", CLIENT),
    ("3.1.3-1", "the payload's fields have an order", "c.connect::the_fields_of_a_connect_are_found_in_their_order"),
    ("3.1.3-2", "the client identifier names the session", "c.connect::an_identifier_is_compared_as_it_is"),
    ("3.1.3-3", "it is there, and first", "c.connect::the_fields_of_a_connect_are_found_in_their_order wrong::cut"),
    ("3.1.3-4", "it is UTF-8", "c.format::every_string_of_a_client_is_judged"),
    ("3.1.3-5", "1 to 23 letters and digits are taken",
     "c.connect::client_identifiers_that_every_server_takes limits::max_client_id"),
    ("3.1.3-6", "an empty one gets a unique one", "access::an_empty_client_id_gets_a_new_one_each_time "
     "c.network::an_empty_client_identifier"),
    ("3.1.3-7", "which is told and counts", "connect::an_assigned_client_identifier_is_told "
     "c.connect::assigned_identifiers_belong_to_nobody_else"),
    ("3.1.3-8", "rejected: told perhaps, closed", "limits::max_client_id "
     "c.connect::a_rejected_identifier_is_told_and_the_connection_closed"),
    ("3.1.3-9", "back within the delay: no will", "wills::a_client_that_is_back_in_time_has_no_will_published"),
    ("3.1.3-10", "a will's user properties keep their order",
     "c.connect::user_properties_of_a_will_keep_their_order"),
    ("3.1.3-11", "the will topic is UTF-8", "c.format::every_string_of_a_client_is_judged wrong::not_utf8"),
    ("3.1.3-12", "the user name is UTF-8", "c.format::every_string_of_a_client_is_judged wrong::not_utf8"),
    ("3.1.4-1", "a CONNECT is validated, else closed", "connect::a_malformed_connect_closes_without_an_answer "
     "wrong::cut wrong::too_many"),
    ("3.1.4-2", "further checks fail: closed", "server::no_certificate "
     "connect::a_will_that_no_rule_allows_keeps_its_client_out "
     "connect::a_refusal_says_why_in_the_words_of_each_version"),
    ("3.1.4-3", "taken over: DISCONNECT 0x8E, closed", "sessions::a_client_identifier_is_taken_over "
     "server::a_second_connection_of_a_node_takes_over"),
    ("3.1.4-4", "clean start is processed", "sessions::a_takeover_by_a_clean_start_leaves_nothing_of_the_session"),
    ("3.1.4-5", "CONNACK 0x00", "connect::an_accepted_client_gets_connack_first_and_once"),
    ("3.1.4-6", "what follows a refused CONNECT is not processed",
     "connect::what_follows_a_refused_connect_is_not_processed"),
    # 3.2: CONNACK
    ("3.2.0-1", "CONNACK comes before all but AUTH", "connect::an_accepted_client_gets_connack_first_and_once "
     "c.connect::a_client_that_takes_no_connack_is_not_left_waiting "
     "c.connect::nothing_larger_than_the_client_takes_is_sent"),
    ("3.2.0-2", "CONNACK comes once", "c.connect::connack_comes_once"),
    ("3.2.2-1", "its reserved flags are 0", "c.format::connack_flags_have_one_bit"),
    ("3.2.2-2", "clean start 1: session present 0", "sessions::a_clean_start_discards_the_session"),
    ("3.2.2-3", "session present tells the truth", "sessions::a_kept_session_is_present_and_has_its_subscriptions"),
    ("3.2.2-4", "a client without state closes on session present 1", "", CLIENT),
    ("3.2.2-5", "a client with state discards it on 0", "", CLIENT),
    ("3.2.2-6", "refused: session present 0", "c.format::connack_flags_have_one_bit "
     "c.connect::a_rejected_identifier_is_told_and_the_connection_closed"),
    ("3.2.2-7", "refused: closed", "connect::a_refusal_says_why_in_the_words_of_each_version"),
    ("3.2.2-8", "the codes are those of the table", "c.format::every_code_that_is_said_is_in_its_table"),
    ("3.2.2-9", "Maximum QoS is announced", "c.connect::maximum_qos_is_announced_and_subscriptions_still_taken"),
    ("3.2.2-10", "and every requested QoS taken",
     "c.connect::maximum_qos_is_announced_and_subscriptions_still_taken"),
    ("3.2.2-11", "a client publishes at no higher one",
     "c.connect::a_publication_above_the_maximum_qos_ends_the_connection", CLIENT),
    ("3.2.2-12", "a will above it is refused", "c.connect::a_will_above_the_maximum_qos_is_refused"),
    ("3.2.2-13", "no retention: a retained will is refused",
     "c.connect::a_retained_will_without_retention_is_refused"),
    ("3.2.2-14", "no retention: a client retains nothing",
     "c.connect::retention_that_is_not_available_is_announced_and_kept_to", CLIENT),
    ("3.2.2-15", "a client keeps to the maximum packet size", "limits::max_packet_size wrong::oversize", CLIENT),
    ("3.2.2-16", "an assigned identifier is new", "access::an_empty_client_id_gets_a_new_one_each_time "
     "c.connect::assigned_identifiers_belong_to_nobody_else c.network::an_empty_client_identifier"),
    ("3.2.2-17", "a client keeps to the alias maximum",
     "c.publish::every_alias_up_to_the_announced_maximum_is_taken", CLIENT),
    ("3.2.2-18", "no maximum: a client has no aliases", "v5::an_alias_over_our_maximum", CLIENT),
    ("3.2.2-19", "a Reason String fits",
     "connect::a_refusal_explains_itself_unless_that_is_more_than_the_client_takes"),
    ("3.2.2-20", "User Properties fit", "c.format::no_acknowledgement_has_a_user_property"),
    ("3.2.2-21", "a client takes the server's keep alive",
     "connect::server_keep_alive_is_told_only_when_it_differs "
     "time::a_keep_alive_set_by_the_server_is_the_one_that_counts", CLIENT),
    ("3.2.2-22", "else the client's counts", "c.connect::keep_alive_is_the_clients_where_the_server_says_nothing"),
    # 3.3: PUBLISH
    ("3.3.1-1", "redelivery has DUP", "c.publish::dup_is_set_on_redelivery_only"),
    ("3.3.1-2", "QoS 0 has no DUP", "c.format::qos_0_has_no_packet_identifier wrong::wrong_flags"),
    ("3.3.1-3", "DUP is not passed on", "qos::dup_is_not_passed_on c.publish::dup_is_set_on_redelivery_only"),
    ("3.3.1-4", "QoS 3 is malformed", "c.publish::qos_3_ends_the_connection wrong::wrong_flags"),
    ("3.3.1-5", "RETAIN replaces, with its QoS", "c.publish::a_retained_message_of_qos_0_replaces_what_was_there"),
    ("3.3.1-6", "an empty payload clears", "retained::an_empty_payload_clears"),
    ("3.3.1-7", "an empty one is not stored", "c.publish::an_empty_retained_payload_is_never_kept"),
    ("3.3.1-8", "without RETAIN the store stays",
     "retained::a_message_that_is_not_retained_changes_nothing_in_the_store"),
    ("3.3.1-9", "retain handling 0: always sent", "retained::retain_handling"),
    ("3.3.1-10", "1: when the subscription is new", "retained::retain_handling"),
    ("3.3.1-11", "2: never", "retained::retain_handling"),
    ("3.3.1-12", "retain as published 0: RETAIN 0", "retained::retain_as_published"),
    ("3.3.1-13", "1: RETAIN as it was", "retained::retain_as_published"),
    ("3.3.2-1", "the topic name is first, and UTF-8", "c.format::every_string_of_a_client_is_judged wrong::cut"),
    ("3.3.2-2", "and has no wildcards", "c.publish::wildcards_in_a_topic_name_end_the_connection wrong::topic_names"),
    ("3.3.2-3", "what arrives matches its filter",
     "c.publish::the_topic_that_arrives_is_the_one_that_was_published"),
    ("3.3.2-4", "payload format unaltered", "c.publish::payload_format_is_passed_on_as_it_is"),
    ("3.3.2-5", "expired before it was sent: deleted",
     "c.publish::an_interval_that_is_over_on_arrival_is_not_delivered_later "
     "qos::a_message_expires_while_it_waits retained::a_retained_message_expires "
     "wills::a_will_expires_from_its_publication_on"),
    ("3.3.2-6", "the interval that remains is told", "c.publish::an_expiry_interval_counts_down_in_whole_seconds"),
    ("3.3.2-7", "aliases end with their connection", "c.publish::aliases_of_two_clients_are_their_own "
     "v5::a_publisher_may_name_its_topics_by_number v5::an_alias_does_not_outlive_its_connection "
     "c.connect::aliases_to_a_client_end_with_its_connection"),
    ("3.3.2-8", "no alias is 0", "c.connect::aliases_stay_within_what_the_client_takes wrong::out_of_range"),
    ("3.3.2-9", "a client keeps to the server's maximum",
     "c.publish::every_alias_up_to_the_announced_maximum_is_taken", CLIENT),
    ("3.3.2-10", "a client takes aliases to its maximum", "", CLIENT),
    ("3.3.2-11", "a server keeps to the client's maximum", "c.connect::aliases_stay_within_what_the_client_takes"),
    ("3.3.2-12", "a server takes aliases to its maximum",
     "c.publish::every_alias_up_to_the_announced_maximum_is_taken"),
    ("3.3.2-13", "the response topic is UTF-8", "c.format::every_string_of_a_client_is_judged wrong::not_utf8"),
    ("3.3.2-14", "and has no wildcards", "wrong::by_section"),
    ("3.3.2-15", "response topic unaltered", "qos::what_a_message_says_is_passed_on_unaltered"),
    ("3.3.2-16", "correlation data unaltered", "qos::what_a_message_says_is_passed_on_unaltered"),
    ("3.3.2-17", "user properties unaltered", "qos::what_a_message_says_is_passed_on_unaltered"),
    ("3.3.2-18", "in their order", "qos::what_a_message_says_is_passed_on_unaltered"),
    ("3.3.2-19", "the content type is UTF-8", "c.format::every_string_of_a_client_is_judged wrong::not_utf8"),
    ("3.3.2-20", "content type unaltered", "qos::what_a_message_says_is_passed_on_unaltered"),
    ("3.3.4-1", "the answer is the QoS's", "qos::every_qos_is_answered_as_it_should"),
    ("3.3.4-2", "overlapping: the highest QoS",
     "subs::overlapping_subscriptions_get_one_message_at_the_highest_qos"),
    ("3.3.4-3", "subscription identifiers come along",
     "c.subscribe::an_identifier_comes_with_what_its_subscription_brings"),
    ("3.3.4-4", "one copy: all of them", "c.subscribe::overlapping_subscriptions_all_give_their_identifiers "
     "v5::overlapping_subscriptions_give_one_message_with_all_identifiers"),
    ("3.3.4-5", "several copies: each its own", "c.subscribe::overlapping_subscriptions_all_give_their_identifiers"),
    ("3.3.4-6", "a client sends none", "c.subscribe::a_client_sends_no_identifier wrong::by_section", CLIENT),
    ("3.3.4-7", "a client keeps to Receive Maximum",
     "c.publish::one_more_than_receive_maximum_ends_the_connection wrong::too_many_at_once", CLIENT),
    ("3.3.4-8", "a client holds up nothing else for it", "", CLIENT),
    ("3.3.4-9", "a server keeps to Receive Maximum", "qos::no_more_are_under_way_than_the_client_takes"),
    ("3.3.4-10", "and holds up nothing else for it",
     "c.publish::other_packets_are_not_held_up_by_a_full_window"),
    # 3.4 to 3.7: acknowledgements
    ("3.4.2-1", "PUBACK's codes are its own", "c.format::every_code_that_is_said_is_in_its_table wrong::reasons"),
    ("3.4.2-2", "its Reason String fits", "c.connect::an_answer_that_fits_without_its_reason_string_is_sent_without "
     "c.connect::nothing_larger_than_the_client_takes_is_sent"),
    ("3.4.2-3", "its User Properties fit", "c.format::no_acknowledgement_has_a_user_property"),
    ("3.5.2-1", "PUBREC's codes are its own", "c.format::every_code_that_is_said_is_in_its_table wrong::reasons"),
    ("3.5.2-2", "its Reason String fits", "c.connect::an_answer_that_fits_without_its_reason_string_is_sent_without "
     "c.connect::nothing_larger_than_the_client_takes_is_sent"),
    ("3.5.2-3", "its User Properties fit", "c.format::no_acknowledgement_has_a_user_property"),
    ("3.6.1-1", "PUBREL has flags 0010", "wrong::wrong_flags"),
    ("3.6.2-1", "PUBREL's codes are its own", "c.format::every_code_that_is_said_is_in_its_table wrong::reasons"),
    ("3.6.2-2", "its Reason String fits", "c.connect::an_answer_that_fits_without_its_reason_string_is_sent_without "
     "c.connect::nothing_larger_than_the_client_takes_is_sent"),
    ("3.6.2-3", "its User Properties fit", "c.format::no_acknowledgement_has_a_user_property"),
    ("3.7.2-1", "PUBCOMP's codes are its own", "c.format::every_code_that_is_said_is_in_its_table wrong::reasons"),
    ("3.7.2-2", "its Reason String fits", "c.connect::an_answer_that_fits_without_its_reason_string_is_sent_without "
     "c.connect::nothing_larger_than_the_client_takes_is_sent"),
    ("3.7.2-3", "its User Properties fit", "c.format::no_acknowledgement_has_a_user_property"),
    # 3.8 to 3.11: SUBSCRIBE, UNSUBSCRIBE
    ("3.8.1-1", "SUBSCRIBE has flags 0010", "wrong::wrong_flags"),
    ("3.8.3-1", "filters are UTF-8", "c.format::every_string_of_a_client_is_judged wrong::not_utf8"),
    ("3.8.3-2", "at least one filter", "c.subscribe::no_filter_at_all_is_an_error wrong::cut"),
    ("3.8.3-3", "no local: not to the publisher", "subs::no_local "
     "c.subscribe::no_local_is_about_the_client_not_the_connection"),
    ("3.8.3-4", "not with a shared subscription",
     "c.subscribe::no_local_with_a_shared_subscription_is_an_error wrong::shares"),
    ("3.8.3-5", "reserved option bits are malformed", "wrong::options"),
    ("3.8.4-1", "SUBSCRIBE is answered", "subs::suback_has_a_code_for_each_filter_in_order"),
    ("3.8.4-2", "with its identifier", "c.format::a_packet_identifier_comes_back_in_its_answer"),
    ("3.8.4-3", "the same filter replaces", "subs::subscribing_again_replaces subs::every_option_is_replaced "
     "c.subscribe::an_identifier_is_replaced_with_its_subscription"),
    ("3.8.4-4", "retained come again, nothing is lost",
     "c.subscribe::retained_messages_come_again_when_a_subscription_is_replaced"),
    ("3.8.4-5", "many filters are as many SUBSCRIBEs", "c.subscribe::many_filters_at_once_are_as_many_one_by_one"),
    ("3.8.4-6", "a code for each", "c.subscribe::many_filters_at_once_are_as_many_one_by_one"),
    ("3.8.4-7", "the granted QoS, or why not", "c.subscribe::the_qos_that_is_granted_is_the_one_that_is_told"),
    ("3.8.4-8", "messages at the lower QoS", "qos::a_message_arrives_at_the_lower_of_both_qos "
     "retained::a_retained_message_comes_at_the_lower_qos"),
    ("3.9.2-1", "its Reason String fits", "c.connect::an_answer_that_fits_without_its_reason_string_is_sent_without "
     "c.connect::nothing_larger_than_the_client_takes_is_sent"),
    ("3.9.2-2", "its User Properties fit", "c.format::no_acknowledgement_has_a_user_property"),
    ("3.9.3-1", "codes in order", "subs::suback_has_a_code_for_each_filter_in_order"),
    ("3.9.3-2", "SUBACK's codes are its own", "c.format::every_code_that_is_said_is_in_its_table"),
    ("3.10.1-1", "UNSUBSCRIBE has flags 0010", "wrong::wrong_flags"),
    ("3.10.3-1", "filters are UTF-8", "c.format::every_string_of_a_client_is_judged wrong::not_utf8"),
    ("3.10.3-2", "at least one filter", "c.subscribe::no_filter_at_all_is_an_error wrong::cut"),
    ("3.10.4-1", "compared character by character", "c.subscribe::filters_are_compared_character_by_character"),
    ("3.10.4-2", "nothing new comes", "c.subscribe::after_unsubscribe_nothing_new_and_what_was_begun"),
    ("3.10.4-3", "what was begun is completed", "c.subscribe::after_unsubscribe_nothing_new_and_what_was_begun"),
    ("3.10.4-4", "UNSUBSCRIBE is answered", "subs::unsubscribe_ends_a_subscription_and_is_answered"),
    ("3.10.4-5", "with its identifier, whatever was deleted",
     "c.format::a_packet_identifier_comes_back_in_its_answer subs::unsubscribe_ends_a_subscription_and_is_answered"),
    ("3.10.4-6", "many filters, one UNSUBACK", "c.subscribe::many_filters_at_once_are_as_many_one_by_one"),
    ("3.11.2-1", "its Reason String fits", "c.connect::an_answer_that_fits_without_its_reason_string_is_sent_without "
     "c.connect::nothing_larger_than_the_client_takes_is_sent"),
    ("3.11.2-2", "its User Properties fit", "c.format::no_acknowledgement_has_a_user_property"),
    ("3.11.3-1", "codes in order", "c.subscribe::many_filters_at_once_are_as_many_one_by_one"),
    ("3.11.3-2", "UNSUBACK's codes are its own", "c.format::every_code_that_is_said_is_in_its_table"),
    # 3.12 to 3.15: PINGREQ, DISCONNECT, AUTH
    ("3.12.4-1", "PINGREQ is answered", "connect::an_accepted_client_gets_connack_first_and_once"),
    ("3.14.0-1", "no DISCONNECT before CONNACK", "c.connect::no_disconnect_before_a_connack wrong::not_first"),
    ("3.14.1-1", "its reserved bits are judged: 0x81", "wrong::wrong_flags"),
    ("3.14.2-1", "DISCONNECT's codes are its own", "c.format::every_code_that_is_said_is_in_its_table wrong::reasons"),
    ("3.14.2-2", "a server sends no expiry interval in it", "c.format::no_disconnect_has_a_session_expiry"),
    ("3.14.2-3", "its Reason String fits", "c.connect::nothing_larger_than_the_client_takes_is_sent "
     "v5::an_explanation_that_does_not_fit_is_left_out"),
    ("3.14.2-4", "its User Properties fit", "c.format::no_acknowledgement_has_a_user_property"),
    ("3.14.4-1", "nothing is sent after it", "wrong::cut c.network::the_end_after_a_disconnect"),
    ("3.14.4-2", "the connection is closed after it", "c.network::the_end_after_a_disconnect"),
    ("3.14.4-3", "0x00 discards the will", "wills::a_goodbye_deletes_the_will"),
    ("3.15.1-1", "AUTH has flags 0000", "wrong::wrong_flags"),
    ("3.15.2-1", "AUTH's codes are its own", "c.authentication::the_codes_of_an_exchange wrong::reasons"),
    ("3.15.2-2", "its Reason String fits", "c.authentication::an_auth_has_no_more_than_it_needs"),
    ("3.15.2-3", "its User Properties fit", "c.authentication::an_auth_has_no_more_than_it_needs"),
    # 4: behaviour
    ("4.1.0-1", "state stays while the connection is open",
     "sessions::a_session_does_not_expire_while_it_is_connected"),
    ("4.1.0-2", "and goes when its time is over", "sessions::a_session_expires_after_its_interval"),
    ("4.2.0-1", "an ordered, lossless transport", "c.network::a_plain_client_needs_nothing_of_ours "
     "streams::it_does_not_matter_how_a_stream_is_cut"),
    ("4.3.1-1", "QoS 0 is sent with QoS 0 and DUP 0", "c.format::qos_0_has_no_packet_identifier"),
    ("4.3.2-1", "QoS 1: an unused identifier", "c.publish::qos_1_is_kept_until_its_puback "
     "qos::identifiers_are_unique_among_those_under_way"),
    ("4.3.2-2", "QoS 1: sent with DUP 0", "c.publish::dup_is_set_on_redelivery_only"),
    ("4.3.2-3", "QoS 1: unacknowledged until PUBACK", "c.publish::qos_1_is_kept_until_its_puback"),
    ("4.3.2-4", "QoS 1: received, PUBACK", "qos::every_qos_is_answered_as_it_should"),
    ("4.3.2-5", "QoS 1: after PUBACK it is a new one",
     "c.publish::a_new_message_under_an_identifier_that_is_free_again qos::qos_1_again_is_a_new_message"),
    ("4.3.3-1", "QoS 2: an unused identifier", "c.publish::qos_2_is_kept_step_by_step "
     "qos::identifiers_are_unique_among_those_under_way"),
    ("4.3.3-2", "QoS 2: sent with DUP 0", "c.publish::dup_is_set_on_redelivery_only"),
    ("4.3.3-3", "QoS 2: unacknowledged until PUBREC", "c.publish::qos_2_is_kept_step_by_step"),
    ("4.3.3-4", "QoS 2: PUBREC, PUBREL", "qos::qos_2_to_a_client_goes_through_its_four_steps"),
    ("4.3.3-5", "QoS 2: PUBREL until PUBCOMP", "c.publish::qos_2_is_kept_step_by_step"),
    ("4.3.3-6", "QoS 2: no PUBLISH after PUBREL", "c.publish::qos_2_is_kept_step_by_step"),
    ("4.3.3-7", "QoS 2: no expiry once sent", "c.publish::expiry_does_not_touch_what_was_sent "
     "qos::a_message_that_is_under_way_does_not_expire"),
    ("4.3.3-8", "QoS 2: received, PUBREC", "qos::every_qos_is_answered_as_it_should"),
    ("4.3.3-9", "QoS 2: after a PUBREC that refused it is a new one",
     "rules::a_denied_qos_2_publication_leaves_its_identifier_free"),
    ("4.3.3-10", "QoS 2: again is no second message", "qos::qos_2_again_is_acknowledged_but_not_routed "
     "wrong::qos_2_in"),
    ("4.3.3-11", "QoS 2: PUBREL, PUBCOMP", "qos::every_qos_is_answered_as_it_should wrong::unknown_identifiers"),
    ("4.3.3-12", "QoS 2: after PUBCOMP it is a new one",
     "c.publish::a_new_message_under_an_identifier_that_is_free_again"),
    ("4.3.3-13", "QoS 2: the exchange goes on after expiry", "c.publish::expiry_does_not_touch_what_was_sent "
     "c.publish::an_exchange_that_was_for_nobody_goes_on"),
    ("4.4.0-1", "resent on reconnect, and at no other time",
     "qos::redelivery_is_in_order_with_dup_and_before_anything_new "
     "c.publish::nothing_is_sent_again_on_the_same_connection"),
    ("4.4.0-2", "a refusal acknowledges", "qos::a_refused_message_is_done_with"),
    ("4.5.0-1", "messages go to every session that matches", "qos::messages_wait_for_a_client_that_is_away"),
    ("4.5.0-2", "a client acknowledges what it gets", "", CLIENT),
    ("4.6.0-1", "a client resends in order", "", CLIENT),
    ("4.6.0-2", "a client sends PUBACKs in order", "qos::acknowledgements_may_come_in_any_order", CLIENT),
    ("4.6.0-3", "a client sends PUBRECs in order", "", CLIENT),
    ("4.6.0-4", "a client sends PUBRELs in order", "", CLIENT),
    ("4.6.0-5", "messages of a client arrive in its order", "streams::messages_of_a_publisher_arrive_in_its_order"),
    ("4.6.0-6", "every topic is ordered", "streams::messages_of_a_publisher_arrive_in_its_order"),
    ("4.7.0-1", "no wildcards in topic names", "c.publish::wildcards_in_a_topic_name_end_the_connection "
     "wrong::topic_names wrong::will_topics"),
    ("4.7.1-1", "# is last and alone", "c.subscribe::a_hash_is_last_and_alone_in_its_level wrong::filters"),
    ("4.7.1-2", "+ takes a whole level", "c.subscribe::a_plus_stands_for_one_level_wherever_it_is wrong::filters"),
    ("4.7.2-1", "leading wildcards do not match $", "c.subscribe::topics_of_the_server_are_not_for_leading_wildcards"),
    ("4.7.3-1", "at least one character", "c.subscribe::at_least_one_character"),
    ("4.7.3-2", "no U+0000", "c.subscribe::no_null_character"),
    ("4.7.3-3", "at most 65,535 bytes", "c.subscribe::the_longest_topic_there_is"),
    ("4.7.3-4", "nothing is normalized", "c.publish::the_topic_that_arrives_is_the_one_that_was_published "
     "subs::what_a_filter_matches"),
    ("4.8.2-1", "$share/, and a name", "c.shared::a_share_name_and_a_filter c.shared::what_is_no_share wrong::shares"),
    ("4.8.2-2", "the name without wildcards, then a filter",
     "c.shared::a_share_name_and_a_filter c.shared::what_is_no_share wrong::shares"),
    ("4.8.2-3", "the granted QoS is kept to", "c.shared::messages_come_at_the_qos_of_the_one_who_gets_them"),
    ("4.8.2-4", "QoS 2 is completed with the same client",
     "c.shared::a_message_at_qos_2_that_was_begun_is_completed_with_the_same_client"),
    ("4.8.2-5", "and with nobody else when it never comes back",
     "c.shared::a_message_at_qos_2_ends_with_the_session_that_it_was_begun_with"),
    ("4.8.2-6", "a refused one goes to nobody else", "c.shared::a_message_that_was_refused_goes_to_nobody_else"),
    ("4.9.0-1", "the quota begins above 0, within Receive Maximum",
     "c.publish::the_send_quota_begins_at_receive_maximum_and_comes_back"),
    ("4.9.0-2", "at 0 nothing of QoS 1 or 2 is sent",
     "c.publish::the_send_quota_begins_at_receive_maximum_and_comes_back"),
    ("4.9.0-3", "but everything else", "c.publish::other_packets_are_not_held_up_by_a_full_window"),
    ("4.12.0-1", "a method that is not supported: closed", "c.network::a_method_that_is_not_supported"),
    ("4.12.0-2", "a challenge has 0x18", "c.authentication::the_codes_of_an_exchange "
     "v5::an_exchange_goes_to_and_fro_and_ends_with_connack"),
    ("4.12.0-3", "so has its answer", "c.authentication::an_answer_of_another_kind_is_refused", CLIENT),
    ("4.12.0-4", "rejected at any point: CONNACK perhaps, closed",
     "c.authentication::an_exchange_may_be_refused_at_any_point v5::refused_in_the_middle_of_an_exchange"),
    ("4.12.0-5", "all name the CONNECT's method", "c.authentication::every_packet_of_an_exchange_names_its_method "
     "v5::anything_else_in_an_exchange_ends_it"),
    ("4.12.0-6", "no method: no AUTH, no method in CONNACK",
     "c.authentication::without_a_method_there_is_no_word_of_it"),
    ("4.12.0-7", "no method: a client sends no AUTH", "v5::a_client_that_gave_no_method_may_not_begin", CLIENT),
    ("4.12.1-1", "authenticating anew keeps the method", "v5::an_auth_out_of_turn_ends_the_connection", CLIENT),
    ("4.12.1-2", "a failure ends the connection", "v5::a_failed_re_authentication_ends_the_connection"),
    ("4.13.1-1", "an error closes its connection",
     "errors::an_invalid_packet_ends_its_connection_and_no_other wrong::cut wrong::from_servers"),
    ("4.13.2-1", "a reason of 0x80 or more closes", "connect::a_refusal_says_why_in_the_words_of_each_version "
     "wrong::by_section c.network::the_end_after_a_disconnect"),
    # 6: WebSocket
    ("6.0.0-1", "WebSocket: binary frames only",
     "ws::mqtt_comes_through ws::wrong_frames_end_the_connection_with_their_code"),
    ("6.0.0-2", "packets and frames are not aligned", "ws::a_packet_may_span_frames_and_a_frame_may_hold_packets"),
    ("6.0.0-3", "a client offers mqtt", "ws::a_handshake_that_is_none", CLIENT),
    ("6.0.0-4", "the server selects mqtt", "ws::mqtt_comes_through"),
]

# fmt: on


def node(test: str, version: str) -> str:
    """The node id of pytest for a test as the rows name it."""
    file, _, name = test.partition("::")
    if file == "wrong":
        return WRONG.format(name, 5 if version == "5.0" else 4)
    return f"{FILES[file]}::test_{name}"


def _statements() -> list[Statement]:
    out = []
    for version, rows in (("3.1.1", V311), ("5.0", V5)):
        for number, meaning, tests, *reason in rows:
            ids = tuple(node(test, version) for test in tests.split())
            out.append(Statement(version, f"MQTT-{number}", meaning, ids, reason[0] if reason else ""))
    return out


STATEMENTS: list[Statement] = _statements()
