"""The web page: what export writes, and what a person sees in a real browser."""
import base64
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image, ImageOps
from timm.data import create_transform, resolve_model_data_config

from conftest import TEST_IMAGES, checkpoint
from scripts.benchmarks.common.browser import chromium, open_page, serve
from timm_wavemix import web
from timm_wavemix.export import export

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / 'scripts' / 'images' / 'demo'

pytestmark = pytest.mark.recent_torch


@pytest.fixture(scope='module')
def package(tmp_path_factory):
    """onnxruntime-web as npm gives it."""
    folder = tmp_path_factory.mktemp('onnxruntime-web')
    (folder / 'dist').mkdir()
    try:
        web.copy_runtime(folder / 'dist')
    except (FileNotFoundError, RuntimeError) as error:
        pytest.skip(str(error))
    return folder


@pytest.fixture(scope='module')
def site(tmp_path_factory, package, fashion_mnist):
    """The pages of a model for colour images, in float and int8, and of one for grey images."""
    folder = tmp_path_factory.mktemp('site')
    export(
        'wavemix_16_5', 'web', folder / 'colour', fashion_mnist / 'validation', examples=EXAMPLES,
        onnxruntime_web=package)
    export('wavemix_lite_8_5', 'web', folder / 'grey', onnxruntime_web=package)
    return folder


@pytest.fixture(scope='module')
def browser():
    pytest.importorskip('selenium')
    try:
        with chromium() as browser:
            yield browser
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture
def page(browser, site):
    with serve(site / 'colour') as url:
        open_page(browser, url)
        yield Page(browser)


class Page:
    """What a person does on the page, and what it shows."""

    def __init__(self, browser):
        self.browser = browser

    def __getattr__(self, name):
        return self.browser.find_element('id', name.replace('_', '-'))

    def find(self, selector):
        return self.browser.find_elements('css selector', selector)

    def settle(self):
        """Wait for all that was asked for."""
        self.browser.execute_async_script(
            "const done = arguments[0]; import('./app.js').then(async ({settled}) => { await settled(); done(); })")

    def upload(self, file):
        self.file.send_keys(str(file))
        self.settle()

    @property
    def classes(self):
        return [(name.text, float(percent.text.rstrip('\u00a0%'))) for name, percent in zip(
            self.find('#classes .name'), self.find('#classes .percent'))]


def top5(logits, names):
    probabilities, classes = torch.as_tensor(logits).softmax(-1).topk(5)
    return [(names[i], 100 * p) for i, p in zip(classes.tolist(), probabilities.tolist())]


def assert_shows(page, expected):
    assert [name for name, _ in page.classes] == [name for name, _ in expected]
    assert [percent for _, percent in page.classes] == pytest.approx([percent for _, percent in expected], abs=0.06)
    assert expected[0][0] in page.answer.text
    assert page.problem.text == ''
    widths = [bar.size['width'] / bar.find_element('xpath', '..').size['width'] for bar in page.find('#classes .bar')]
    assert [100 * width for width in widths] == pytest.approx([percent for _, percent in expected], abs=1)


@pytest.fixture(scope='module')
def model():
    return timm.create_model('wavemix_16_5', pretrained=True).eval()


@pytest.fixture(scope='module')
def expected(model):
    """The five best classes of a file, in Python."""
    def run(file):
        with torch.no_grad():
            images = create_transform(**resolve_model_data_config(model))(Image.open(file).convert('RGB'))[None]
            return top5(model(images)[0], model.pretrained_cfg['label_names'])
    return run


@pytest.fixture
def photo(tmp_path):
    file = tmp_path / 'photo.png'
    Image.open(EXAMPLES / '00004_shirt.png').convert('RGB').resize((90, 120), Image.Resampling.BICUBIC).save(file)
    return file


def test_an_image_that_is_uploaded_dropped_pasted_or_an_example_gets_the_classes_of_python(page, photo, expected):
    assert not page.result.is_displayed()
    page.upload(photo)
    assert_shows(page, expected(photo))
    assert page.preview.is_displayed() and page.seen.size['width'] > 0
    boot = EXAMPLES / '00000_ankle_boot.png'
    buttons = page.find('#examples button')
    assert len(buttons) == len(list(EXAMPLES.glob('*.png')))
    buttons[0].click()
    page.settle()
    assert_shows(page, expected(boot))
    for event, key in ('drop', 'dataTransfer'), ('paste', 'clipboardData'):
        page.browser.execute_async_script('''
            const [event, key, bytes, done] = arguments;
            const data = new DataTransfer();
            data.items.add(new File([Uint8Array.fromBase64(bytes)], 'image.png', {type: 'image/png'}));
            const init = {bubbles: true, cancelable: true, [key]: data};
            document.dispatchEvent(event === 'drop' ? new DragEvent(event, init) : new ClipboardEvent(event, init));
            done();''', event, key, base64.b64encode((photo if event == 'drop' else boot).read_bytes()).decode())
        page.settle()
        assert_shows(page, expected(photo if event == 'drop' else boot))


def test_keyboard_alone_reaches_an_example_and_int8(page, expected):
    from selenium.webdriver import ActionChains, Keys

    def focused():
        return page.browser.switch_to.active_element

    def tab_to(attribute, value):
        for _ in range(30):
            ActionChains(page.browser).send_keys(Keys.TAB).perform()
            if focused().get_attribute(attribute) == value:
                return
        raise AssertionError(f'{value} cannot be reached')

    tab_to('id', 'file')
    tab_to('aria-label', 'Example: ankle boot')
    ActionChains(page.browser).send_keys(Keys.ENTER).perform()
    page.settle()
    assert_shows(page, expected(EXAMPLES / '00000_ankle_boot.png'))
    tab_to('type', 'radio')
    in_float = page.classes
    ActionChains(page.browser).send_keys(Keys.ARROW_RIGHT).perform()
    page.settle()
    assert focused().get_attribute('value') == 'int8'
    assert page.classes[0] == (in_float[0][0], pytest.approx(in_float[0][1], abs=5))
    assert page.classes != in_float
    assert 'int8' in page.time.text


def test_the_camera_gives_an_image(page):
    assert page.open_camera.is_displayed()
    page.open_camera.click()
    page.settle()
    assert page.camera.is_displayed()
    page.shoot.click()
    page.settle()
    assert len(page.classes) == 5 and page.problem.text == ''
    assert not page.camera.is_displayed()


def test_bad_input_is_a_sentence_and_the_page_goes_on(page, tmp_path, photo, expected):
    (tmp_path / 'text.png').write_text('This is not an image.')
    (tmp_path / 'notes.txt').write_text('Nor is this.')
    (tmp_path / 'empty.png').touch()
    noise = Image.effect_noise((64, 64), 99)
    noise.save(tmp_path / 'whole.png')
    (tmp_path / 'broken.png').write_bytes((tmp_path / 'whole.png').read_bytes()[:1000])
    Image.new('1', (8660, 5774)).save(tmp_path / 'large.png')
    for name in 'text.png', 'notes.txt', 'empty.png', 'broken.png', 'large.png':
        page.upload(photo)
        page.upload(tmp_path / name)
        assert page.problem.is_displayed() and page.problem.text, name
        assert not page.result.is_displayed() and not page.preview.is_displayed() and page.answer.text == ''
    assert '50' in page.problem.text
    page.browser.execute_script(
        "document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: new DataTransfer()}))")
    page.settle()
    assert page.problem.text
    page.upload(photo)
    assert_shows(page, expected(photo))


def test_a_page_that_was_opened_as_a_file_says_how_to_serve_it(browser, site):
    from selenium.webdriver.support.wait import WebDriverWait
    browser.get((site / 'colour' / 'index.html').as_uri())
    hint = browser.find_element('css selector', '#loading .late')
    WebDriverWait(browser, 60).until(lambda _: hint.is_displayed())


def test_page_needs_no_network_once_it_has_loaded(browser, site, photo, expected):
    with serve(site / 'colour') as url:
        open_page(browser, url)
        loaded = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert all(name.startswith((url, f'blob:{url}', 'data:')) for name in loaded)
    page = Page(browser)  # whose server has stopped
    page.upload(photo)
    assert_shows(page, expected(photo))
    page.find('#examples button')[1].click()
    page.find('input[value=int8] + span')[0].click()
    page.settle()
    assert len(page.classes) == 5 and page.problem.text == ''


def test_page_fits_a_phone_has_a_dark_mode_and_names_all_controls(page, photo):
    page.upload(photo)
    for width in 320, 390, 1200:
        screen = dict(width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
        page.browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', screen)
        assert page.browser.execute_script('return document.documentElement.scrollWidth') <= width
    page.browser.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})
    brightness = {}
    for scheme in 'light', 'dark':
        page.browser.execute_cdp_cmd(
            'Emulation.setEmulatedMedia', {'features': [{'name': 'prefers-color-scheme', 'value': scheme}]})
        color = page.browser.execute_script('return getComputedStyle(document.body).backgroundColor')
        brightness[scheme] = sum(int(n) for n in color[4:-1].split(','))
    page.browser.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': []})
    assert brightness['dark'] < 200 < 600 < brightness['light']
    controls = page.find('button, input')
    assert len(controls) > 10
    assert all(control.accessible_name for control in controls if control.is_displayed())
    assert (page.answer.aria_role, page.problem.aria_role) == ('status', 'alert')


# preprocessing


IN_THE_PAGE = '''
const [images, config, done] = arguments;
import('./app.js').then(async ({app, readImage, resizeAndCrop, normalise, run}) => {
  const page = await app;
  const results = [];
  for (const bytes of images) {
    const blob = new Blob([Uint8Array.fromBase64(bytes)]);
    const cropped = resizeAndCrop(await readImage(blob), config ?? page.config);
    results.push(config ? Array.from(cropped) : (await run(page.sessions.float32, page.config, cropped)).probabilities);
  }
  done(results);
}).catch((error) => done(String(error)));
'''


def in_the_page(browser, images, config=None):
    """Of each image, the page's bytes with this preprocessing, or the probabilities of its model."""
    def encode(image):
        stream = io.BytesIO()
        image.save(stream, 'PNG', **image.info)
        return base64.b64encode(stream.getvalue()).decode()
    results = browser.execute_async_script(IN_THE_PAGE, [encode(image) for image in images], config)
    assert not isinstance(results, str), results
    return np.array(results)


@pytest.mark.parametrize('name, page', [('wavemix_16_5', 'colour'), ('wavemix_lite_8_5', 'grey')])
def test_500_images_of_all_sizes_get_the_classes_of_python(browser, site, name, page):
    model = timm.create_model(name, pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(model))
    mode = 'L' if page == 'grey' else 'RGB'
    sheet = Image.open(TEST_IMAGES)
    draw = np.random.default_rng(0)
    images = []
    for i in range(500):
        image = sheet.crop((28 * (i % 50), 28 * (i // 50), 28 * (i % 50) + 28, 28 * (i // 50) + 28))
        if i % 5:  # the others are as they are
            image = image.resize(draw.integers(20, 240, 2).tolist(), Image.Resampling.LANCZOS)
        images.append(ImageOps.colorize(image, 'black', draw.integers(128, 256, 3).tolist()) if i % 2 else image)
    with serve(site / page) as url:
        open_page(browser, url)
        probabilities = in_the_page(browser, images)
    with torch.no_grad():
        expected = model(torch.stack([transform(image.convert(mode)) for image in images])).softmax(-1).numpy()
    assert (probabilities.argmax(1) == expected.argmax(1)).mean() >= 0.99
    np.testing.assert_allclose(probabilities, expected, atol=1e-3)


@pytest.mark.parametrize('config', [
    dict(input_size=[3, 28, 28], crop_pct=1.0, crop_mode='center', interpolation='bicubic'),
    dict(input_size=[3, 32, 32], crop_pct=0.875, crop_mode='center', interpolation='bilinear'),
    dict(input_size=[1, 33, 33], crop_pct=0.9, crop_mode='center', interpolation='lanczos'),
    dict(input_size=[3, 24, 40], crop_pct=0.95, crop_mode='center', interpolation='bicubic'),
    dict(input_size=[3, 24, 24], crop_pct=0.9, crop_mode='squash', interpolation='bilinear'),
], ids=lambda config: f'{config["interpolation"]}-{config["crop_mode"]}-{config["input_size"]}')
def test_bytes_are_those_of_timms_transform(page, config):
    draw = np.random.default_rng(0)
    sizes = [(28, 28), (1, 1), (3, 200), (200, 3), (31, 47), (47, 31), (32, 32), (150, 101), (640, 480)]
    images = [Image.fromarray(draw.integers(0, 256, (h, w, 3), np.uint8)) for w, h in sizes]
    images += [image.resize((97, 55), Image.Resampling.BICUBIC) for image in images[-2:]]
    transform = create_transform(**config, normalize=False)
    mode = 'L' if config['input_size'][0] == 1 else 'RGB'
    expected = np.stack([transform(image.convert(mode)).numpy() for image in images])
    channels, height, width = config['input_size']
    actual = in_the_page(page.browser, images, config).reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(actual, expected)


def test_images_are_read_as_pillow_reads_them_and_photos_upright(page):
    draw = np.random.default_rng(0)
    colours = draw.integers(0, 256, (28, 28, 4), np.uint8)
    colours[:9, :, 3] = 0
    transparent = Image.fromarray(colours)
    palette = transparent.convert('RGB').quantize(20)
    palette.info['transparency'] = 3
    gamma = Image.fromarray(colours[..., :3])
    gamma.info['icc_profile'] = wide_gamut_profile()
    turned = Image.fromarray(colours[..., :3])
    exif = turned.getexif()
    exif[0x0112] = 6  # the camera was held upright
    turned.info['exif'] = exif.tobytes()
    images = [transparent, palette, gamma, Image.fromarray(colours[..., 0]), Image.fromarray(colours[..., :2], 'LA')]
    expected = [image.convert('RGB') for image in images] + [turned.transpose(Image.Transpose.ROTATE_270)]
    config = dict(input_size=[3, 28, 28], crop_pct=1.0, crop_mode='center', interpolation='bicubic')
    actual = in_the_page(page.browser, [*images, turned], config)
    np.testing.assert_array_equal(actual.reshape(-1, 28, 28, 3), np.stack([np.asarray(image) for image in expected]))


def wide_gamut_profile():
    """An ICC profile that a browser would convert from, unless it is told not to."""
    from PIL import ImageCms
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes())
    red, green = (profile.index(tag, 128) for tag in (b'rXYZ', b'gXYZ'))
    profile[red:red + 4], profile[green:green + 4] = b'gXYZ', b'rXYZ'  # red is green
    return bytes(profile)


# the folder


def test_folder_is_a_static_space_that_holds_what_the_model_needs(site):
    folder = site / 'colour'
    assert {path.name for path in folder.iterdir()} == {
        'README.md', 'app.js', 'examples', 'index.html', 'model.json', 'model.onnx', 'model-int8.onnx',
        *web.RUNTIME_FILES}
    _, front, text = (folder / 'README.md').read_text(encoding='utf-8').split('---\n', 2)
    front = yaml.safe_load(front)
    assert (front['sdk'], front['license']) == ('static', 'mit')
    config = json.loads((folder / 'model.json').read_text(encoding='utf-8'))
    cfg = timm.get_pretrained_cfg('wavemix_16_5')
    assert config['labels'] == list(cfg.label_names)
    for key in 'input_size', 'mean', 'std':
        assert config[key] == list(getattr(cfg, key))
    metadata = yaml.safe_load((ROOT / 'hub_configs' / 'wavemix_16_5.fashion_mnist.yaml').read_text())
    for fact in metadata['use']['limits'], str(metadata['metrics']['top1']):
        assert fact in (folder / 'model.json').read_text() and fact in text
    assert 'examples' in json.loads((site / 'grey' / 'model.json').read_text())


def test_ones_own_checkpoint_gets_its_names_from_a_config(browser, tmp_path, package):
    trained = timm.create_model('wavemix_16_5', num_classes=3).eval()
    file = checkpoint(tmp_path / 'last.pth.tar', trained, num_classes=3, input_size=[3, 40, 40], crop_pct=0.9)
    (tmp_path / 'examples').mkdir()
    Image.new('RGB', (9, 9)).save(tmp_path / 'examples' / '01_my #1?.PNG')
    (tmp_path / 'metadata.yaml').write_text('label_names: [cat, dog, "<b>fish"]\nuse: {limits: knows three animals}')
    export(
        str(file), 'web', tmp_path / 'page', metadata=tmp_path / 'metadata.yaml', onnxruntime_web=package,
        examples=tmp_path / 'examples')
    config = json.loads((tmp_path / 'page' / 'model.json').read_text())
    assert (config['labels'], config['input_size'], config['crop_pct']) == (['cat', 'dog', '<b>fish'], [3, 40, 40], 0.9)
    assert 'knows three animals' in (tmp_path / 'page' / 'README.md').read_text()
    with serve(tmp_path / 'page') as url:
        open_page(browser, url)
        page = Page(browser)
        page.find('#examples button')[0].click()
        page.settle()
        assert {name for name, _ in page.classes} == {'cat', 'dog', '<b>fish'}


def test_fine_tuned_weights_have_neither_the_names_nor_the_figures_of_those_they_come_from(tmp_path):
    web.write_page(timm.create_model('wavemix_16_5.fashion_mnist', num_classes=3), tmp_path)
    text = (tmp_path / 'model.json').read_text()
    assert json.loads(text)['labels'] is None
    assert 'fashion' not in text.lower() and '93.09' not in text


@pytest.mark.parametrize('overlay, options, fact', [
    (dict(interpolation='box'), {}, 'box'),
    (dict(input_size=(2, 28, 28)), {}, '2 channels'),
    (dict(crop_mode='border'), {}, 'border'),
    ({}, dict(metadata_file='label_names: [one]'), '1 label_names'),
    ({}, dict(examples=''), '--examples'),
])
def test_what_the_page_cannot_do_is_a_sentence(tmp_path, overlay, options, fact):
    channels = overlay.get('input_size', (3,))[0]
    model = timm.create_model('wavemix_16_5', in_chans=channels, pretrained_cfg_overlay=overlay)
    if 'metadata_file' in options:
        (tmp_path / 'metadata.yaml').write_text(options['metadata_file'])
        options = dict(metadata_file=tmp_path / 'metadata.yaml')
    elif 'examples' in options:
        options = dict(examples=tmp_path)
    with pytest.raises((OSError, ValueError), match=fact):
        web.write_page(model, tmp_path, **options)


def test_without_npm_the_message_names_both_ways_out(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, 'which', lambda name: None)
    with pytest.raises(FileNotFoundError, match='Node.js.*--onnxruntime-web'):
        web.copy_runtime(tmp_path)
