"""The threat model, row by row, and the test that shows each defence. Rooms: tests.security unless another is named.

attacker      | attempt                                   | test
------------- | ----------------------------------------- | --------------------------------------------------------------
input file    | another API or a path by an id            | test_input: hostile_ids_reach_no_url
              |                                           | manifest/test_check: ids_that_must_never_reach_an_url_are_refused
              |                                           | zstack/test_transport: other_paths_than_ours_are_a_bug
              | fields of its own (session, unknown)      | test_input: fields_that_are_not_of_the_list_never_reach_a_body
              |                                           | manifest/test_check: jsonl_lines_flat_and_in_the_apis_own_shape
              | a line, a quote, a depth without end      | test_input: a_bomb_of_a_manifest_is_a_problem_and_not_memory
              |                                           | manifest/test_tabular: an_unclosed_quote_costs_its_own_row_and_no_other,
              |                                           |   a_damaged_row_is_a_problem_with_its_line_and_its_neighbours_run,
              |                                           |   memory_does_not_grow_with_the_file
              |                                           | manifest/test_corpora: json_test_suite_as_rows
              | a workbook that expands without end       | manifest/test_spreadsheet: a_zip_bomb_is_refused_before_it_is_unpacked,
              |                                           |   a_damaged_sheet_is_refused_as_a_whole, a_cell_in_the_last_corner_costs_nothing
              | a workbook that hides what it changes     | manifest/test_spreadsheet: what is hidden
              | formula, escape, newline in a name (T63)  | test_readers (all); cli/test_bad_input: hostile_texts_reach_the_terminal_written_out
              | one uuid, two values                      | ledger/test_ledger: duplicates_that_contradict_each_other_are_all_refused
              |                                           | cli/test_bad_input: a_bad_manifest_exits_3 (twice.csv)
server, proxy | harvest a credential (T61)                | test_origin (all); zstack/test_transport: redirects_are_not_followed,
              |                                           |   cookies_are_neither_kept_nor_sent; zstack/test_wire: a_location_without_a_job_is_none
              | make us hammer it                         | journeys/test_bad_servers: retry_after_on_any_answer_holds_every_request,
              |                                           |   one_burst_of_429_is_one_hold, a_long_retry_after_while_asking_stops_the_run
              | lock the account by logins                | journeys/test_bad_servers: a_login_that_is_refused_in_the_middle_is_tried_once
              | make us lie                               | journeys/test_bad_servers: answers_swapped_between_rows_never_settle_the_wrong_one,
              |                                           |   an_applied_change_is_never_failed_whatever_status_says_so,
              |                                           |   what_was_not_applied_is_never_updated
              |                                           | apply/test_verdict: judging_is_total_and_never_finds_success_without_the_image
              | exhaust memory or time (T65)              | test_bombs (all); zstack/test_transport: bodies_are_bounded,
              |                                           |   a_server_that_drips_or_says_nothing_is_bounded_by_the_timeout
              | terminal, log, spreadsheet by its errors  | test_readers (all); cli/test_screen: hostile_texts_are_written_out
local user    | read ps, files, temporary files, a core   | test_secrets (all, T60)
              |                                           | cli/test_bad_input: credentials_come_from_private_places_and_one_kind_at_a_time
              | read what a run leaves (T62)              | test_local_user: files_are_private_whatever_the_umask
              | swap a run, or write into it              | test_local_user: nobody_else_can_write_where_the_runs_are,
              |                                           |   a_run_directory_that_others_write_in_is_refused,
              |                                           |   a_run_directory_of_another_user_is_refused,
              |                                           |   a_ledger_that_is_not_ours_alone_is_refused
              | a link, a FIFO, a directory in the way    | test_local_user: a_trap_in_the_run_directory_harms_nothing,
              |                                           |   a_trap_at_the_result_file_harms_nothing
              |                                           | cli/test_bad_input: results_replace_a_plain_file_and_nothing_else
              | forge an outcome in the ledger            | none: a user who can write the ledger can write any outcome
readers       | find a credential                         | test_secrets: a_run_writes_no_secret, a_refused_login_writes_no_secret,
              |                                           |   what_a_server_echoes_in_any_form_is_not_written,
              |                                           |   the_signature_and_the_hash_that_a_server_echoes_are_not_written,
              |                                           |   a_killed_run_and_its_resumption_write_no_secret, a_bug_writes_no_secret
              | be fooled by forged lines (T63)           | test_readers: every_log_line_is_one_json_object,
              |                                           |   a_terminal_and_a_log_get_nothing_to_obey
              | run a formula (T64)                       | test_readers: no_cell_of_the_result_file_begins_like_a_formula,
              |                                           |   our_own_columns_of_what_is_fed_back_are_no_formulas,
              |                                           |   no_formula_begins_behind_another_delimiter
network       | read or alter                             | test_network (all); zstack/test_tls (all)
              | replay, duplicate                         | zstack/test_transport: a_put_is_never_sent_twice_by_the_http_client
              |                                           | journeys/test_interruptions: killed_at_any_moment_and_resumed
              | move the name mid-run                     | zstack/test_tls: an_unknown_authority_and_another_host_get_nothing
receivers     | read values of rows in a message          | notify/test_messages: no_value_of_a_row_leaves_unless_it_is_asked_for
              | find an address in a file, a log, ps      | notify/test_rules: a_mistake_is_named_with_file_and_line_and_without_the_address
              |                                           | notify/test_apprise: a_message_goes_out_by_a_child_without_our_credentials
              | forge or redirect a message               | notify/test_webhook: a_run_sends_its_summary_signed, a_redirect_is_not_followed
hooks         | find our credentials                      | notify/test_hooks: hooks_get_the_facts_of_the_run_and_none_of_our_credentials
              | hold a run up                             | notify/test_hooks: a_hook_that_does_not_end_is_killed_with_its_children
nobody        | contact the network unasked (T66)         | test_offline (all)
supply chain  | a bad library                             | the hashes of requirements.lock, checked by `make venv`

The account's name and an access key's id are names, not secrets: the ledger keeps them as the run's identity.
Out of scope: root on the machine; a server that lies consistently in PUT, poll and GET; a disk that forgets.
"""
