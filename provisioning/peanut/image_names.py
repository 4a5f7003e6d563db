"""The names that MicroPython's image has: of its modules, of what is in them, and of what its objects can be asked for.

Rule: whole, for the ports that a node runs on (1.26: unix, ESP32). None of ours that is among them gets another name
(peanut/shorten.py): `pin.value` and our own `value` cannot be told apart, and a name that the image has costs nothing.
Names with capitals, and those that begin with `_`, are not in it. A test holds it against the unix port.
"""

_WORDS = """
a2b_base64 abs abs_tol accept aclose acos acosh acquire active add add_peer addr addr4 addr6 addressof addrsize aes
align all alloc_emergency_exception_buf allocate_lock antenna any append appendleft arg args argv array asin asinh
asm_rv32 asm_thumb asm_xtensa atan atan2 atanh atexit atten auth authmode autoconf6 awrite awritestr b2a_base64
baudrate big bin binascii bind bits bitstream bitstream_channel blit block block_size board bool bootloader
bound_method bssid btree buf buffer buffering builtin_driver builtins bytearray bytearray_at bytecode byteorder bytes
bytes_at cachesize calcsize call call_exception_handler callable callback cancel cb cd ceil center channel chdir
check_bootsec check_msg choice chr cipher classmethod clear client_id clock clock_div close closure cmath cmd co_code
co_consts co_filename co_firstlineno co_lines co_lnotab co_name co_names code collect collections commit compile
complex config connect const control_xfer_cb convert_temp copy copysign core coro cos cosh count country crc32 crc8
create_task cryptolib cs cts cur_task current_task data datetime decode decrypt deepsleep default
default_exception_handler deflate degrees deinit del_peer delattr deleter deque desc_cfg desc_dev desc_strs dest dhcp
dhcp4 dhcp6 dhcp_hostname dht dht_readinto dict dict_view difference difference_update digest dir disable disable_irq
discard disconnect divmod dns do_handshake_on_connect doc done drain drive ds18x20 dump dumps dupterm dupterm_notify
duty duty_ns duty_u16 e ecdsa_sign_callback ellipse enable enable_irq encode encoding encrypt end endswith entry
enumerate ep_max erase_key erf erfc errno errorcode esp esp32 essid eval event exc exc_info exception exec execfile
executable exit exp expm1 extend f_back f_code f_globals f_lasti f_lineno fabs factorial falling feed file fileno fill
fill_rect filter find firstbit flags flash_erase flash_read flash_size flash_user_start flash_write float floor flow
flush fmod format frame framebuf freq frexp from_bytes fromhex fromkeys frozenset fs_corrupted funcs function
fw_version gamma gather gc generator get get_blob get_ciphers get_event_loop get_exception_handler get_extra_info
get_i32 get_ident get_next_update get_peer get_peers getaddrinfo getattr getcwd getenv getpeercert getrandbits
getsizeof getter getvalue globals gmtime gpio_deep_sleep_hold gpio_matrix_in gpio_matrix_out group groups gw4 handler
hard has_autoconf6 has_dhcp4 hasattr hash hashlib heap heap_lock heap_locked heap_unlock heapify heappop heappush
heapq help hex hexlify hidden hline hold hostname humidity ibuf id idf_heap_info idf_task_info idle idle_level
ifconfig ifidx ifname ilistdir imag implementation index indices inet_ntop inet_pton inf info init input insert int
intern intersection intersection_update invert io ioctl ipconfig ipoll irecv irq is_ready is_set isalpha isclose
isconnected isdigit isdisjoint isenabled isfinite isinf isinstance islower isnan isspace issubclass issubset
issuperset isupper items itemsize iter iterable iterator itf_max join json kbd_intr keepalive keepends key keys label
ldexp len level lgamma libc_ver lightsleep line list listdir listen little lmk load load_binary load_cert_chain
load_verify_locations loads locals localtime lock locked log log10 log2 lookahead loop lower lstrip lw_msg lw_qos
lw_retain lw_topic lwip mac machine makefile map mark_app_valid_cancel_rollback marshal match math max max_clients
maximum_space_recursion_space_depth_space_exceeded maxsize mck mcu_temperature md5 mdc mdio measure mem mem16 mem32
mem8 mem_addrsize mem_alloc mem_current mem_free mem_info mem_peak mem_total memaddr memory memoryview micropython min
minkeypage miso mkdir mkfs mktime mod_peer mode mode_high mode_low mode_pin modf modify module module_name modules
monitor mosi mount mtime name namedtuple nan native neopixel network new_event_loop new_service_callback newline next
nina nodename ntptime object oct off on onewire opcode open open_connection open_itf_cb openamp opt_level ord os
osdebug out_buf pack pack_into pagesize parity partition passive password path peek peer_count peers_table pend_throw
period ph_child ph_child_last ph_delete ph_key ph_meld ph_next ph_pairing ph_rightmost_parent phase phases phy_addr
phy_mode phy_type pi pid pin ping pins pixel platform pm polar polarity poll poller poly pop popitem popleft pow power
prefer preview print print_exception print_pcbs progsize property protocol ps1 ps2 pswd ptr ptr16 ptr32 ptr8 publish
pull push put putenv pystack_space_exhausted pystack_use python_compiler qstr_info queue_read queue_write r radians
randint random randrange range rate raw_temperature rb re read read_scratch read_temp read_u16 read_uv readbit
readblocks readbyte readchar readexactly readfrom readfrom_into readfrom_mem readfrom_mem_into readinto readline
readlines readonly readsize real reconnect reconnects rect recv recv_into recvfrom recvinto ref_clk ref_clk_mode
register regs rel_tol release remote_wakeup remove rename replace repr reset reset_cause reset_cb return reverse
reversed rfind rindex rising rmdir rom_ioctl round route rpartition rsplit rssi rstrip rts run run_forever
run_until_complete rx rxbuf scan schedule sck scl scroll sd sda search security seed seek select select_rom self send
send_ethernet sendall sendbreak sendto sep separators seq server server_hostname server_side set set_blob set_boot
set_callback set_ciphers set_exception_handler set_i32 set_last_will set_pmk set_wakeup_period setattr setblocking
setdefault setsockopt setter settime settimeout settrace setup sha1 sha256 shift shutdown sin single sinh sizeof sleep
sleep_ms sleep_us slice slip slot sock sockaddr socket soft_reset sort sorted source_freq span spi split splitlines
sqrt src ssid stack_size stack_use stall start start_new_thread start_server startswith stat state staticmethod
stations stats status statvfs stderr stdin stdout step stop str str_max stream stream_awrite strip struct sub
submit_xfer subscribe subtype sum super symmetric_difference symmetric_difference_update sync sys sysname system tan
tanh tau tell temperature text threshold threshold0 threshold1 throw tick_hz ticks ticks_add ticks_cpu ticks_diff
ticks_ms ticks_us time time_ns time_pulse_us timeout timeout_char timeout_ms tls to_bytes toggle trace tracebacklimit
trigger trunc tuple tx tx_carrier txbuf txdone txpower type uctypes uint umount uname unhexlify uniform union
unique_id unlink unpack unpack_from unregister unsafe unsetenv update upper urandom user username usys utf_hyphen_8
value values verify_callback verify_mode version version_info vfs viper vline wait wait_closed wait_done wait_for
wait_for_ms wait_io_event wait_msg waiting wake wake_on_ext0 wake_on_ext1 wake_on_touch wake_on_ulp wake_reason wb
websocket width wp wrap_socket write write_pulses write_readinto write_scratch writebit writeblocks writebyte
writechar writeto writeto_mem writevto ws xfer_cb xxx xxxx zip
"""
NAMES = frozenset(_WORDS.split())
