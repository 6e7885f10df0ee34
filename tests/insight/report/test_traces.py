"""The section of a report about where objects were lost."""

import os
import re

import pytest

from frdet.insight.report import write_page
from frdet.insight.trace.model import FOUND
from tests.insight.report.made import FIRST, scalars, step
from tests.insight.report.test_training_page import table_of
from tests.insight.trace.written import STAGES, write_trace

ANCHOR, NMS, _, _ = STAGES


@pytest.fixture
def work_dir(tmp_path):
    scalars(tmp_path / 'my run' / FIRST, [step(1, 4.0)])
    return tmp_path / 'my run'


def age(trace, seconds):
    """Let a trace be older."""
    status = (trace / 'trace.json').stat()
    os.utime(trace / 'trace.json', (status.st_atime, status.st_mtime - seconds))


def test_the_command_where_there_is_no_trace(work_dir):
    content = write_page(work_dir, work_dir / 'report.html').read_text()
    assert 'python tools/trace_objects.py CONFIG CHECKPOINT --split val</pre>' in content
    (work_dir / FIRST / 'config.py').write_text('lr = 0.01\n')
    (work_dir / 'last_checkpoint').write_text('/gone/epoch_3.pth')
    content = write_page(work_dir, work_dir / 'report.html').read_text()
    quoted = [f'&#39;{work_dir}/{name}&#39;' for name in (f'{FIRST}/config.py', 'epoch_3.pth')]
    assert f'python tools/trace_objects.py {" ".join(quoted)} --split val</pre>' in content


def test_stages_of_the_newest_trace(work_dir, browser):
    """And the others, with links: two checkpoints that were compared, and one in the default folder."""
    age(write_trace(work_dir / 'over/epoch_1', [NMS, NMS]), 20)
    age(write_trace(work_dir / 'over/epoch 2', [NMS, FOUND], page=False), 10)
    (work_dir / 'over/trace.html').write_text('<title>over epochs</title>')
    age(write_trace(work_dir / 'trace/again', [NMS, FOUND]), 30)
    checkpoint = work_dir / 'epoch_1.pth'
    write_trace(work_dir / 'trace', [NMS, FOUND, FOUND, ANCHOR, FOUND, FOUND, FOUND, NMS], checkpoint=checkpoint)
    write_trace(work_dir / 'much/deeper/trace', [NMS])
    page = write_page(work_dir, work_dir.parent / 'pages/report.html')
    content = page.read_text()
    assert f'of {checkpoint} on 4 images. Each of the 8 objects is found from IoU 0.5 on' in content
    setting = 'model.a=0.5'
    assert table_of(content, 'Objects by stage') == [
        [ANCHOR, '1', '12.5%', f'at &lt;{ANCHOR}&gt;', setting],
        [NMS, '2', '25.0%', f'at &lt;{NMS}&gt;', setting],
        [FOUND, '5', '62.5%', f'at &lt;{FOUND}&gt;', setting],
    ]
    traces = table_of(content, 'Traces, the newest first')
    assert [(re.sub('<.*?>', '', row[0]), *row[2:]) for row in traces] == [
        ('trace', '8', '5', '62.5%'), ('over/epoch 2', '2', '1', '50.0%'), ('over/epoch_1', '2', '0', '0.0%'),
        ('trace/again', '2', '1', '50.0%'),
    ]  # fmt: skip
    assert len(table_of(content, 'Pages that compare traces')) == 1
    assert '<a' not in traces[1][0] and 'older than its checkpoint' not in content
    browser.check(page)
    for name, title in (('trace', 'one trace'), ('over/trace.html', 'over epochs')):
        browser.open(page)
        browser.driver.find_element('link text', name).click()
        assert browser.run('return document.title') == title


def test_a_trace_of_a_checkpoint_that_was_overwritten(work_dir):
    age(write_trace(work_dir / 'trace', [FOUND], checkpoint=work_dir / 'epoch_1.pth'), 5)
    (work_dir / 'epoch_1.pth').write_text('')
    content = write_page(work_dir, work_dir / 'report.html').read_text()
    assert (
        f'The trace in {work_dir}/trace is older than its checkpoint {work_dir}/epoch_1.pth: make it again' in content
    )


def test_a_broken_trace(work_dir):
    write_trace(work_dir / 'trace', [FOUND])
    (work_dir / 'trace/trace.json').write_text('{')
    content = write_page(work_dir, work_dir / 'report.html').read_text()
    assert f'{work_dir}/trace is no trace' in content and 'python tools/trace_objects.py' in content
